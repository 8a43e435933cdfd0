import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, writeFileSync } from 'node:fs';
import type { AgentClient } from '@kms-agent/client';
import type { KeyPolicy } from '@kms-agent/protocol';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { agentProgram, cleanEnv, initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { asRoot, cgroupRoot, TestPeer } from '../kit/peer.ts';

const message = 'aGVsbG8=';
const missing = '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f';
/** What is said of a key that is not there. */
const denial = { allowed: false, rule: 'noStatement', wouldSucceed: false, blockedBy: 'ERR_ACCESS_DENIED' };
const folder = new TempFolder();
let agent: TestAgent;
let kms: AgentClient;

/** An agent that others can reach. */
beforeAll(async () => {
  chmodSync(folder.path, 0o755);
  const statements = [
    { sid: 'makers', effect: 'Allow', principals: ['uid:4801'], actions: ['createKey', 'listKeys', 'listAliases', 'lock'] },
    { sid: 'lookers', effect: 'Allow', principals: ['gid:4900'], actions: ['listKeys'] },
    { sid: 'askers', effect: 'Allow', principals: ['uid:4823'], actions: ['explain'] },
  ];
  writeFileSync(folder.join('config.json'), JSON.stringify({ socketMode: 0o666, policy: { statements } }));
  await initVault(folder);
  agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
  kms = await agent.client();
  await kms.unlock({ passphrase });
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

async function keyWith(...statements: KeyPolicy['statements']): Promise<string> {
  const { keyId } = await kms.createKey();
  await kms.setKeyPolicy({ keyId, policy: { statements } });
  return keyId;
}

const refused = (code: string, details: object = {}): object => ({ code, details: expect.objectContaining(details) as object });

describe('writing a policy', () => {
  test('the default is the creator; what is set comes back with users and groups as numbers', async () => {
    const { keyId } = await kms.createKey();
    const uid = process.getuid?.() ?? 0;
    expect(await kms.getKeyPolicy({ keyId })).toEqual({
      keyId,
      statements: [{ effect: 'Allow', principals: [`uid:${uid}`], actions: ['use', 'view', 'manage'] }],
    });
    const policy: KeyPolicy = {
      statements: [
        {
          sid: 'web',
          effect: 'Allow',
          principals: ['user:nobody', { group: 'nogroup', unit: 'shop.service' }, '*'],
          actions: ['use', 'getKeyPolicy'],
          limits: { hours: '22:00-06:00' },
        },
      ],
    };
    const kept = {
      keyId,
      statements: [
        {
          sid: 'web',
          effect: 'Allow',
          principals: ['uid:65534', { gid: '65534', unit: 'shop.service' }, '*'],
          actions: ['use', 'getKeyPolicy'],
          limits: { hours: '22:00-06:00' },
        },
      ],
    };
    expect(await kms.setKeyPolicy({ keyId, policy })).toEqual(kept);
    expect(await kms.getKeyPolicy({ keyId: (await kms.describeKey({ keyId })).keyId })).toEqual(kept);
    const { keyId: made } = await kms.createKey({ policy });
    expect((await kms.getKeyPolicy({ keyId: made })).statements).toEqual(kept.statements);
  });

  const allow = { effect: 'Allow', principals: ['*'], actions: ['use'] };
  test.each([
    ['an unknown action', { ...allow, actions: ['use', 'dcrypt'] }, '/policy/statements/0/actions/1'],
    ['an action of the agent', { ...allow, actions: ['createKey'] }, '/policy/statements/0/actions/0'],
    ['an inherited name', { ...allow, actions: ['constructor'] }, '/policy/statements/0/actions/0'],
    ['an unknown user', { ...allow, principals: ['user:no such user'] }, '/policy/statements/0/principals/0'],
    ['an unknown kind', { ...allow, principals: ['uid:1', 'host:1'] }, '/policy/statements/0/principals/1'],
    ['an unknown kind in an object', { ...allow, principals: [{ uid: '1', pid: '2' }] }, '/policy/statements/0/principals/0'],
    ['an empty object', { ...allow, principals: [{}] }, '/policy/statements/0/principals/0'],
    ['a uid that is none', { ...allow, principals: ['uid:4294967295'] }, '/policy/statements/0/principals/0'],
    ['a user twice', { ...allow, principals: [{ user: 'nobody', uid: '1' }] }, '/policy/statements/0/principals/0'],
    ['a unit without its type', { ...allow, principals: ['unit:nginx'] }, '/policy/statements/0/principals/0'],
    ['a relative executable', { ...allow, principals: ['exe:bin/sh'] }, '/policy/statements/0/principals/0'],
    ['an unknown field', { ...allow, condition: {} }, '/policy/statements/0/condition'],
    ['an unknown limit', { ...allow, limits: { perMinute: 1 } }, '/policy/statements/0/limits/perMinute'],
    ['limits of a Deny', { ...allow, effect: 'Deny', limits: { total: 1 } }, '/policy/statements/0/limits'],
    ['bindAad of a Deny', { ...allow, effect: 'Deny', bindAad: ['user'] }, '/policy/statements/0/bindAad'],
    ['an unknown fact', { ...allow, bindAad: ['pid'] }, '/policy/statements/0/bindAad/0'],
    ['hours that are none', { ...allow, limits: { hours: '8-18' } }, '/policy/statements/0/limits/hours'],
    ['nobody', { ...allow, principals: [] }, '/policy/statements/0/principals'],
  ])('%s: ERR_INVALID_PARAMS with its path, and the policy stays', async (_name, statement, path) => {
    const { keyId } = await kms.createKey();
    const before = await kms.getKeyPolicy({ keyId });
    const policy = { statements: [statement] } as KeyPolicy;
    await expect(kms.setKeyPolicy({ keyId, policy })).rejects.toMatchObject(refused('ERR_INVALID_PARAMS', { path }));
    await expect(kms.createKey({ policy })).rejects.toMatchObject(refused('ERR_INVALID_PARAMS', { path }));
    expect(await kms.getKeyPolicy({ keyId })).toEqual(before);
  });

  test('more than 32,768 bytes: ERR_INVALID_PARAMS', async () => {
    const { keyId } = await kms.createKey();
    const statements = Array.from({ length: 200 }, (_, index) => ({
      sid: `${index}`.padEnd(120, 'x'),
      effect: 'Allow' as const,
      principals: ['*', `exe:/${'y'.repeat(80)}`],
      actions: ['use'],
    }));
    await expect(kms.setKeyPolicy({ keyId, policy: { statements } })).rejects.toMatchObject(refused('ERR_INVALID_PARAMS', { path: '/policy' }));
  });

  test.skipIf(!asRoot)('exe: of an interpreter is kept with a warning (needs root: an agent without CAP_SYS_PTRACE refuses it)', async () => {
    const { keyId } = await kms.createKey();
    const policy = { statements: [{ effect: 'Allow' as const, principals: ['exe:/usr/bin/python3', 'exe:/usr/sbin/nginx'], actions: ['use'] }] };
    const { warnings } = await kms.setKeyPolicy({ keyId, policy });
    expect(warnings).toEqual([expect.stringContaining('/usr/bin/python3')]);
    expect((await kms.getKeyPolicy({ keyId })).warnings).toBeUndefined();
  });

  test.skipIf(!asRoot)('exe: where the agent cannot read which program others run: ERR_UNSUPPORTED_OPERATION (needs root, to give rights up)', async () => {
    using place = new TempFolder();
    chownSync(place.path, 4802, 4802);
    chmodSync(place.path, 0o755);
    const command = ['setpriv', '--reuid=4802', '--regid=4802', '--clear-groups'];
    const asked = { statements: [{ effect: 'Allow' as const, principals: ['exe:/bin/true'], actions: ['use'] }] };
    const start = async (mode: number): Promise<string> => {
      writeFileSync(place.join('config.json'), JSON.stringify({ socketMode: mode }));
      await using unprivileged = await TestAgent.serve(place, '--config', place.join('config.json'), { command });
      await using own = await TestPeer.start(unprivileged.socketPath, { uid: 4802 });
      await own.ask('unlock', { passphrase });
      const { result } = await own.ask('createKey');
      return await own.outcome('setKeyPolicy', { keyId: result?.['keyId'], policy: asked });
    };
    const init = ['init', '--data-dir', place.join('vault'), '--passphrase-fd', '0'];
    execFileSync('setpriv', [...command.slice(1), process.execPath, agentProgram, ...init], {
      input: `${passphrase}\n`,
      env: cleanEnv(),
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    expect([await start(0o600), await start(0o666)]).toEqual(['ok', 'ERR_UNSUPPORTED_OPERATION']);
  });
});

describe.skipIf(!asRoot)('who may do what (needs root, to be several users)', () => {
  test('a grant reaches its caller, its action and its key, and nothing beside', async () => {
    const granted = await keyWith({ effect: 'Allow', principals: ['uid:4801'], actions: ['encrypt'] });
    const other = await keyWith({ effect: 'Allow', principals: ['uid:4899'], actions: ['use'] });
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4801 });
    expect(await peer.outcome('encrypt', { keyId: granted, plaintext: message })).toBe('ok');
    expect(await peer.outcome('decrypt', { keyId: granted, ciphertextBlob: message, iv: 'AAAAAAAAAAAAAAAA' })).toBe('ERR_ACCESS_DENIED');
    expect(await peer.outcome('describeKey', { keyId: granted })).toBe('ERR_ACCESS_DENIED');
    expect(await peer.outcome('encrypt', { keyId: other, plaintext: message })).toBe('ERR_ACCESS_DENIED');
    await using stranger = await TestPeer.start(agent.socketPath, { uid: 4803 });
    expect(await stranger.outcome('encrypt', { keyId: granted, plaintext: message })).toBe('ERR_ACCESS_DENIED');
  });

  test('gid: the first group and the others; an object needs all; * is everybody', async () => {
    const byGroup = await keyWith({ effect: 'Allow', principals: ['gid:4900'], actions: ['use'] });
    const both = await keyWith({ effect: 'Allow', principals: [{ uid: '4804', gid: '4900' }], actions: ['use'] });
    const all = await keyWith({ effect: 'Allow', principals: ['*'], actions: ['use'] });
    await using member = await TestPeer.start(agent.socketPath, { uid: 4804, groups: [4900] });
    await using namesake = await TestPeer.start(agent.socketPath, { uid: 4900 });
    await using other = await TestPeer.start(agent.socketPath, { uid: 4804 });
    const outcomes: string[][] = [];
    for (const peer of [member, namesake, other]) {
      const row: string[] = [];
      for (const keyId of [byGroup, both, all]) row.push(await peer.outcome('advanceEncrypt', { keyId, plaintext: message }));
      outcomes.push(row);
    }
    expect(outcomes).toEqual([
      ['ok', 'ok', 'ok'],
      ['ok', 'ERR_ACCESS_DENIED', 'ok'],
      ['ERR_ACCESS_DENIED', 'ERR_ACCESS_DENIED', 'ok'],
    ]);
  });

  test('Deny wins, whatever its place, and binds administrators, who can mend the policy all the same', async () => {
    const keyId = await keyWith(
      { effect: 'Allow', principals: ['*'], actions: ['use'] },
      { sid: 'nobody decrypts', effect: 'Deny', principals: ['*'], actions: ['decrypt', 'reEncrypt', 'getKeyPolicy', 'setKeyPolicy'] },
    );
    const sealed = await kms.encrypt({ keyId, plaintext: new Uint8Array(3) });
    await expect(kms.decrypt(sealed)).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
    const advance = await kms.advanceEncrypt({ keyId, plaintext: new Uint8Array(3) });
    await expect(kms.reEncrypt({ ciphertextBlob: advance.ciphertextBlob, destinationKeyId: keyId })).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4801 });
    expect(await peer.outcome('getKeyPolicy', { keyId })).toBe('ERR_ACCESS_DENIED');
    expect((await kms.getKeyPolicy({ keyId })).statements).toHaveLength(2);
    await kms.setKeyPolicy({ keyId, policy: { statements: [] } });
    expect((await kms.decrypt(sealed)).plaintext).toEqual(new Uint8Array(3));
  });

  test('reEncrypt: a right to decrypt at the source and to encrypt at the destination', async () => {
    const source = await keyWith({ effect: 'Allow', principals: ['uid:4805'], actions: ['advanceDecrypt'] });
    const destination = await keyWith({ effect: 'Allow', principals: ['uid:4805'], actions: ['advanceEncrypt'] });
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: source, plaintext: new Uint8Array(3) });
    const blob = Buffer.from(ciphertextBlob).toString('base64');
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4805 });
    expect(await peer.outcome('reEncrypt', { ciphertextBlob: blob, destinationKeyId: destination })).toBe('ok');
    expect(await peer.outcome('reEncrypt', { ciphertextBlob: blob, destinationKeyId: source })).toBe('ERR_ACCESS_DENIED');
    await kms.setKeyPolicy({ keyId: source, policy: { statements: [{ effect: 'Allow', principals: ['uid:4805'], actions: ['reEncrypt'] }] } });
    expect(await peer.outcome('reEncrypt', { ciphertextBlob: blob, destinationKeyId: destination })).toBe('ERR_ACCESS_DENIED');
  });

  test('an alias is moved by who may manage both keys', async () => {
    const from = await keyWith({ effect: 'Allow', principals: ['uid:4806'], actions: ['use'] });
    const to = await keyWith({ effect: 'Allow', principals: ['uid:4806'], actions: ['manage'] });
    await kms.createAlias({ aliasName: 'alias/payments', keyId: from });
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4806 });
    expect(await peer.outcome('updateAlias', { aliasName: 'alias/payments', keyId: to })).toBe('ERR_ACCESS_DENIED');
    expect(await peer.outcome('deleteAlias', { aliasName: 'alias/payments' })).toBe('ERR_ACCESS_DENIED');
    expect(await peer.outcome('createAlias', { aliasName: 'alias/mine', keyId: to })).toBe('ok');
    await kms.setKeyPolicy({ keyId: from, policy: { statements: [{ effect: 'Allow', principals: ['uid:4806'], actions: ['manage'] }] } });
    expect(await peer.outcome('updateAlias', { aliasName: 'alias/payments', keyId: to })).toBe('ok');
  });

  test('the agent policy: methods without a key; lists show what may be described; the default key is for administrators to make', async () => {
    await using maker = await TestPeer.start(agent.socketPath, { uid: 4801 });
    const { result } = await maker.ask('createKey', { aliasName: 'alias/made-by-4801' });
    expect(result).toMatchObject({ creator: 'uid:4801' });
    expect(await maker.outcome('encrypt', { keyId: result?.['keyId'], plaintext: message })).toBe('ok');
    expect(await maker.outcome('setKeyPolicy', { keyId: result?.['keyId'], policy: { statements: [] } })).toBe('ok');
    expect(await maker.outcome('encrypt', { keyId: result?.['keyId'], plaintext: message })).toBe('ERR_ACCESS_DENIED');
    const mine = (await maker.ask('createKey', { aliasName: 'alias/mine-4801' })).result?.['keyId'];
    const { keys } = (await maker.ask('listKeys')).result as { keys: { keyId: string }[] };
    const { aliases } = (await maker.ask('listAliases')).result as { aliases: { aliasName: string }[] };
    expect(keys.map(({ keyId }) => keyId)).toContain(mine);
    expect(keys.every(({ keyId }) => keyId !== result?.['keyId'])).toBe(true);
    expect(aliases.map(({ aliasName }) => aliasName)).toContain('alias/mine-4801');
    expect(aliases.map(({ aliasName }) => aliasName)).not.toContain('alias/made-by-4801');
    expect(await maker.outcome('listAliases', { keyId: missing })).toBe('ERR_ACCESS_DENIED');
    await using looker = await TestPeer.start(agent.socketPath, { uid: 4807, groups: [4900] });
    expect((await looker.ask('listKeys')).result).toMatchObject({ keys: expect.not.arrayContaining([expect.objectContaining({ keyId: mine })]) as unknown });
    expect(await looker.outcome('createKey')).toBe('ERR_ACCESS_DENIED');
    expect(await looker.outcome('listAliases')).toBe('ERR_ACCESS_DENIED');
    expect(await maker.outcome('createKey', { aliasName: 'alias/default' })).toBe('ERR_ACCESS_DENIED');
  });

  test('listKeys by the beginning of an alias: whether there is a next page does not tell of names that the caller may not see', async () => {
    await using maker = await TestPeer.start(agent.socketPath, { uid: 4801 });
    expect(await maker.outcome('createKey', { aliasName: 'alias/list/own' })).toBe('ok');
    await kms.createAlias({ aliasName: 'alias/list/hidden', keyId: await keyWith() });
    const fieldsWith = async (probe: string): Promise<string[]> =>
      Object.keys((await maker.ask('listKeys', { limit: 1, filters: { aliasPrefix: ['list/own', probe] } })).result ?? {});
    expect(await fieldsWith('list/hidden')).toEqual(await fieldsWith('list/nothing'));
  });

  test('limits: a key that is named and that its blob names is one use; what a request uses twice counts twice', async () => {
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4809 });
    const limited = async (total: number): Promise<{ keyId: string; ciphertextBlob: string }> => {
      const { keyId } = await kms.createKey();
      const { ciphertextBlob } = await kms.advanceEncrypt({ keyId, plaintext: new Uint8Array([1]) });
      await kms.setKeyPolicy({ keyId, policy: { statements: [{ effect: 'Allow', principals: ['uid:4809'], actions: ['use'], limits: { total } }] } });
      return { keyId, ciphertextBlob: Buffer.from(ciphertextBlob).toString('base64') };
    };
    const two = await limited(2);
    expect([await peer.outcome('advanceDecrypt', two), await peer.outcome('advanceDecrypt', two), await peer.outcome('advanceDecrypt', two)]).toEqual([
      'ok',
      'ok',
      'ERR_LIMIT_EXCEEDED',
    ]);
    const { keyId, ciphertextBlob } = await limited(1);
    expect(await peer.outcome('reEncrypt', { ciphertextBlob, destinationKeyId: keyId })).toBe('ERR_LIMIT_EXCEEDED');
  });

  test('limits: so many a second, in total through a restart, and at hours; an Allow without them lets through', async () => {
    const use = { effect: 'Allow' as const, actions: ['use'] };
    const slow = await keyWith({ ...use, principals: ['uid:4808'], limits: { perSecond: 2 } });
    const few = await keyWith({ ...use, principals: ['uid:4808'], limits: { total: 3 } });
    const hour = (shift: number): string => `${String((new Date().getHours() + shift + 24) % 24).padStart(2, '0')}:00`;
    const closed = await keyWith({ ...use, principals: ['uid:4808'], limits: { hours: `${hour(2)}-${hour(-2)}` } });
    const open = await keyWith({ ...use, principals: ['uid:4808'], limits: { hours: `${hour(-1)}-${hour(2)}` } });
    const both = await keyWith({ ...use, principals: ['uid:4808'], limits: { total: 1 } }, { ...use, principals: ['*'] });
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4808 });
    const many = async (keyId: string, count: number): Promise<string[]> => {
      const outcomes: string[] = [];
      for (let index = 0; index < count; index += 1) outcomes.push(await peer.outcome('encrypt', { keyId, plaintext: message }));
      return outcomes;
    };
    expect((await many(slow, 4)).filter((outcome) => outcome === 'ERR_RATE_LIMITED').length).toBeGreaterThan(0);
    const { error } = await peer.ask('encrypt', { keyId: slow, plaintext: message });
    expect(error?.data).toMatchObject({ code: 'ERR_RATE_LIMITED', retryable: true, retryAfterMs: expect.any(Number) as number });
    expect(await many(few, 2)).toEqual(['ok', 'ok']);
    expect(await many(closed, 1)).toEqual(['ERR_ACCESS_DENIED']);
    expect(await many(open, 2)).toEqual(['ok', 'ok']);
    expect(await many(both, 3)).toEqual(['ok', 'ok', 'ok']);
    await agent.end('SIGKILL');
    agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
    kms = await agent.client();
    await kms.unlock({ passphrase });
    await using again = await TestPeer.start(agent.socketPath, { uid: 4808 });
    expect(await again.outcome('encrypt', { keyId: few, plaintext: message })).toBe('ok');
    expect(await again.outcome('encrypt', { keyId: few, plaintext: message })).toBe('ERR_LIMIT_EXCEEDED');
    expect(await kms.encrypt({ keyId: few, plaintext: new Uint8Array(1) })).toMatchObject({ keyId: few }); // an administrator has no limit
  });
});

describe.skipIf(cgroupRoot === undefined)('units and what is bound to them (needs root and cgroups of version 2)', () => {
  const shop = 'system.slice/kms-shop.service';
  const bank = 'system.slice/kms-bank.service';

  test('a unit has its rights and its own default key', async () => {
    const keyId = await keyWith({ effect: 'Allow', principals: ['unit:kms-shop.service'], actions: ['use'] });
    await using inside = await TestPeer.start(agent.socketPath, { uid: 4810, cgroup: shop });
    await using outside = await TestPeer.start(agent.socketPath, { uid: 4810 });
    expect((await inside.ask('whoAmI')).result).toMatchObject({
      unit: 'kms-shop.service',
      defaultKey: 'alias/service/kms-shop_2eservice',
      exe: expect.any(String) as string,
    });
    expect(await inside.outcome('encrypt', { keyId, plaintext: message })).toBe('ok');
    expect(await outside.outcome('encrypt', { keyId, plaintext: message })).toBe('ERR_ACCESS_DENIED');
    const made = (await inside.ask('advanceEncrypt', { plaintext: message })).result;
    expect((await kms.describeKey({ keyId: String(made?.['keyId']) })).service).toBe('kms-shop.service');
    expect(await inside.outcome('advanceDecrypt', { ciphertextBlob: made?.['ciphertextBlob'] })).toBe('ok');
    expect(await outside.outcome('advanceDecrypt', { ciphertextBlob: made?.['ciphertextBlob'] })).toBe('ERR_ACCESS_DENIED');
    expect(await outside.outcome('advanceEncrypt', { plaintext: message })).toBe('ERR_ACCESS_DENIED');
  });

  test('an administrator gives the key of a renamed unit to its new name', async () => {
    await using old = await TestPeer.start(agent.socketPath, { uid: 4810, cgroup: 'system.slice/kms-old.service' });
    await using renamed = await TestPeer.start(agent.socketPath, { uid: 4810, cgroup: 'system.slice/kms-new.service' });
    const { keyId, ciphertextBlob } = (await old.ask('advanceEncrypt', { plaintext: message })).result as { keyId: string; ciphertextBlob: string };
    expect(await renamed.outcome('advanceDecrypt', { ciphertextBlob })).toBe('ERR_ACCESS_DENIED');
    const principals = ['unit:kms-old.service', 'unit:kms-new.service'];
    await kms.setKeyPolicy({ keyId, policy: { statements: [{ effect: 'Allow', principals, actions: ['use'] }] } });
    expect(await renamed.outcome('advanceDecrypt', { ciphertextBlob })).toBe('ok');
  });

  test('bindAad: what one service made opens for it alone, though both may use the key; raw operations are refused', async () => {
    const keyId = await keyWith({
      effect: 'Allow',
      principals: ['unit:kms-shop.service', 'unit:kms-bank.service'],
      actions: ['use'],
      bindAad: ['unit', 'user'],
    });
    await using one = await TestPeer.start(agent.socketPath, { uid: 4811, cgroup: shop });
    await using other = await TestPeer.start(agent.socketPath, { uid: 4811, cgroup: bank });
    const { ciphertextBlob } = (await one.ask('advanceEncrypt', { keyId, plaintext: message, aad: message })).result as { ciphertextBlob: string };
    expect(Buffer.from(ciphertextBlob, 'base64')[5]).toBe(0b011);
    const open = { ciphertextBlob, aad: message };
    expect((await one.ask('advanceDecrypt', open)).result).toMatchObject({ plaintext: message });
    expect(await other.outcome('advanceDecrypt', open)).toBe('ERR_INVALID_CIPHERTEXT');
    expect(await other.outcome('reEncrypt', { ...open, destinationKeyId: keyId })).toBe('ERR_INVALID_CIPHERTEXT');
    const unmarked = Buffer.from(ciphertextBlob, 'base64');
    unmarked[5] = 0;
    expect(await one.outcome('advanceDecrypt', { ciphertextBlob: unmarked.toString('base64'), aad: message })).toBe('ERR_INVALID_CIPHERTEXT');
    await expect(kms.advanceDecrypt({ ciphertextBlob: Buffer.from(ciphertextBlob, 'base64'), aad: Buffer.from(message, 'base64') })).rejects.toMatchObject(
      refused('ERR_INVALID_CIPHERTEXT'),
    );
    for (const method of ['encrypt', 'generateDataKey'])
      expect(await one.outcome(method, { keyId, ...(method === 'encrypt' ? { plaintext: message } : {}) })).toBe('ERR_UNSUPPORTED_OPERATION');
    await using outsider = await TestPeer.start(agent.socketPath, { uid: 4811 });
    expect(await outsider.outcome('advanceEncrypt', { keyId, plaintext: message })).toBe('ERR_ACCESS_DENIED');
  });

  test('a bound fact that is not known of the caller: nothing is made', async () => {
    const keyId = await keyWith({ effect: 'Allow', principals: ['uid:4812'], actions: ['use'], bindAad: ['unit'] });
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4812 });
    expect(await peer.outcome('advanceEncrypt', { keyId, plaintext: message })).toBe('ERR_ACCESS_DENIED');
  });
});

describe.skipIf(!asRoot)('what others may do meanwhile (needs root and setpriv)', () => {
  const manage = { effect: 'Allow' as const, principals: ['uid:4821'], actions: ['manage' as const] };

  test.each([
    ['without a limit', undefined],
    ['which this very request has used up', { total: 1 }],
  ])('an alias that an administrator moves to somebody else’s key is not moved back by who only had a right on the old one, %s', async (_, limits) => {
    const [old, other] = [await keyWith(manage), await keyWith()];
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4821 });
    const aliasName = `alias/moved-${limits ? 'limited' : 'free'}`;
    await kms.createAlias({ aliasName, keyId: old });
    let denied = 0;
    for (let round = 0; round < 30; round += 1) {
      const own = await keyWith(limits ? { ...manage, limits } : manage);
      const [, theirs] = await Promise.all([kms.updateAlias({ aliasName, keyId: other }), peer.outcome('updateAlias', { aliasName, keyId: own })]);
      if (theirs === 'ERR_ACCESS_DENIED') denied += 1;
      const { keyId } = await kms.describeKey({ keyId: aliasName });
      expect([theirs, keyId]).toEqual([expect.stringMatching(/^(ok|ERR_ACCESS_DENIED)$/), other]); // either came first: it is the administrator’s in the end
      await kms.updateAlias({ aliasName, keyId: old });
    }
    // Denied is denied in the record too, before and after it has begun.
    const { records } = await kms.tailAudit({ limit: 1000 });
    const ends = records.filter(
      ({ operation, caller, outcome }) => operation === 'updateAlias' && caller?.uid === 4821 && outcome !== 'begun' && outcome !== 'done',
    );
    expect(ends.slice(-denied).map(({ outcome, error }) => [outcome, error])).toEqual(Array.from({ length: denied }, () => ['denied', 'ERR_ACCESS_DENIED']));
  });

  test('explain says nothing of keys and aliases that are none of the caller’s business', async () => {
    const keyId = await keyWith();
    await kms.createAlias({ aliasName: 'alias/secret', keyId });
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4822 });
    for (const method of ['generateRandom', 'status', 'whoAmI', 'rpc.discover', 'encrypt', 'listKeys', 'createKey']) {
      const there = (await peer.ask('explain', { method, keyId })).result;
      for (const reference of [missing, 'alias/secret', 'alias/nothing'])
        expect([method, (await peer.ask('explain', { method, keyId: reference })).result]).toEqual([method, there]);
    }
  });

  test('who may only explain learns of no key what others may do with it, nor whether it is there; of one that is shown to him he does', async () => {
    const keyId = await keyWith(
      { effect: 'Allow', principals: ['uid:4824'], actions: ['use'] },
      { effect: 'Allow', principals: ['uid:4825'], actions: ['use'], limits: { total: 1 } },
    );
    await using user = await TestPeer.start(agent.socketPath, { uid: 4825 });
    for (const expected of ['ok', 'ERR_LIMIT_EXCEEDED']) expect(await user.outcome('advanceEncrypt', { keyId, plaintext: message })).toBe(expected);
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4823 });
    const ask = async (reference: string, uid: number): Promise<unknown> =>
      (await peer.ask('explain', { method: 'advanceEncrypt', keyId: reference, caller: { uid } })).result;
    for (const uid of [0, 4824, 4825, 4826])
      for (const reference of [keyId, missing, 'alias/nothing']) expect([uid, reference, await ask(reference, uid)]).toEqual([uid, reference, denial]);
    expect((await peer.ask('explain', { method: 'advanceEncrypt', caller: { uid: 0 } })).result).toEqual(denial); // the default key is none of his
    expect((await peer.ask('explain', { method: 'createKey', caller: { uid: 0 } })).result).toEqual(denial); // nor who is an administrator
    const shown = await keyWith(
      { effect: 'Allow', principals: ['uid:4824'], actions: ['use'] },
      { effect: 'Allow', principals: ['uid:4823'], actions: ['describeKey'] },
    );
    expect(await ask(shown, 4824)).toMatchObject({ allowed: true, rule: 'keyPolicy', statementIndex: 0, wouldSucceed: true });
    expect(await ask(shown, 0)).toMatchObject({ allowed: true, rule: 'administrator' });
    expect(await ask(shown, 4826)).toEqual(denial);
  });

  test('explain of updateAlias asks for the key that the alias stands for, too', async () => {
    const own = await keyWith({ ...manage, actions: ['manage', 'view'] });
    const deny = { sid: 'keep away', effect: 'Deny', principals: ['uid:4821'], actions: ['manage'] } as const;
    await kms.createAlias({ aliasName: 'alias/foreign', keyId: await keyWith(deny as never) }); // the params are not readonly
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4821 });
    const asked = { method: 'updateAlias', keyId: own, aliasName: 'alias/foreign' };
    expect((await peer.ask('explain', asked)).result).toMatchObject({ allowed: false, blockedBy: 'ERR_ACCESS_DENIED' });
    expect(await peer.outcome('updateAlias', { aliasName: 'alias/foreign', keyId: own })).toBe('ERR_ACCESS_DENIED');
    for (const aliasName of ['alias/foreign', 'alias/nothing-here'])
      expect([aliasName, (await peer.ask('explain', { ...asked, aliasName })).result]).toEqual([aliasName, denial]); // whose policy it is that refuses is not his to see
    expect((await peer.ask('explain', { method: 'updateAlias', keyId: own })).error?.data).toMatchObject({ code: 'ERR_INVALID_PARAMS', path: '/aliasName' });
    expect((await peer.ask('explain', { ...asked, method: 'enableKey' })).error?.data).toMatchObject({ code: 'ERR_INVALID_PARAMS', path: '/aliasName' });
  });
});
