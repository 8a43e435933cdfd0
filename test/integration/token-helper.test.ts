import { randomUUID } from 'node:crypto';
import { mkdirSync, renameSync, rmdirSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Waits } from '../../daemon/src/providers/pkcs11/backoff.ts';
import { HelperProcess } from '../../daemon/src/providers/pkcs11/helper.ts';
import { TokenLink } from '../../daemon/src/providers/pkcs11/link.ts';
import { TokenPins } from '../../daemon/src/providers/pkcs11/pins.ts';
import { defaultTokenSettings } from '../../daemon/src/providers/pkcs11/settings.ts';
import { TempFolder } from '../kit/agent.ts';
import { FaultModule, FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf, until } from '../kit/outcome.ts';
import { hasSoftHsm, killHelper, pin, SoftHsm, softHsmModule, TokenRig } from '../kit/softhsm.ts';

describe.skipIf(!hasSoftHsm)('the helper of a token (needs SoftHSM and gcc)', () => {
  test('an idle check that meets a full queue is none: the agent lives, and the token comes back', async () => {
    const overrides = { timeoutMs: 3000, checkIntervalMs: 200, maxQueued: 2, sessions: 1 };
    await using faulty = await FaultyRig.make({ overrides });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const sign = (): Promise<string> => codeOf(kms.sign({ keyId, message: Buffer.from('x') }));
    fault.begin('C_Sign', 'hang');
    const signing = Array.from({ length: 10 }, sign);
    await delay(1000); // five checks
    fault.end();
    for (const code of await Promise.all(signing)) expect(['ERR_BUSY', 'ERR_HSM_UNAVAILABLE', 'no error']).toContain(code);
    expect(rig.agent?.child.exitCode).toBeNull();
    await until(async () => (await sign()) === 'no error', 'it signs again');
  });

  test('a helper that dies while nobody needs it is replaced without a call, also when it has just been started', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is there');
    for (let turn = 0; turn < 3; turn += 1) {
      const pid = (await tokenOf(kms))?.hsm?.helperPid ?? 0;
      process.kill(pid, 'SIGKILL');
      await until(async () => {
        const token = await tokenOf(kms);
        return token?.state === 'ok' && token.hsm?.helperPid !== pid;
      }, 'another helper is there');
    }
  });

  /** A link of its own to a token, with Node replaced by another program for the helpers that it starts while `work` runs. */
  async function withLink(
    timeoutMs: number,
    work: (link: TokenLink, startWith: (program: string) => void, folder: TempFolder) => Promise<void>,
    { waits, ...overrides }: { readonly waits?: Waits; readonly checkIntervalMs?: number; readonly module?: string } = {},
  ): Promise<void> {
    using folder = new TempFolder();
    const hsm = new SoftHsm(folder);
    hsm.initToken('hsm');
    process.env['SOFTHSM2_CONF'] = hsm.env['SOFTHSM2_CONF'];
    const settings = { ...defaultTokenSettings, name: 'hsm', module: softHsmModule, uri: 'pkcs11:token=hsm', timeoutMs, ...overrides };
    const pins = new TokenPins({ settings, readPin: async () => Buffer.from(pin), savePin: async () => undefined, onNote: () => undefined });
    const link = new TokenLink({ settings, pins, now: Date.now, onState: () => undefined, ...(waits ? { waits } : {}) });
    const { execPath } = process;
    try {
      await work(
        link,
        (program) => {
          process.execPath = program;
        },
        folder,
      );
    } finally {
      process.execPath = execPath;
      await link.stop();
    }
  }

  /** Keys in a token, and a list of them whose first page is read. */
  async function withListBegun(
    work: (link: TokenLink, begun: { keyVersionIds: readonly string[]; objects: readonly { keyVersionId: string }[]; next: number }) => Promise<void>,
  ): Promise<void> {
    using place = new TempFolder();
    const fault = new FaultModule(place);
    Object.assign(process.env, fault.env);
    const begin = async (link: TokenLink): Promise<void> => {
      link.start();
      const keyVersionIds = Array.from({ length: 6 }, () => randomUUID() as string);
      for (const keyVersionId of keyVersionIds)
        await link.call('generate', { key: { keyVersionId, keySpec: 'AES_256', keyUsage: 'ENCRYPT_DECRYPT', label: 'x' } });
      fault.begin('C_GetAttributeValue', 'slow60');
      const { objects, next = 0 } = await link.call('list', { from: 0 });
      fault.end();
      expect(next).toBeGreaterThan(0);
      await work(link, { keyVersionIds, objects, next });
    };
    await withLink(5000, begin, { module: fault.module });
  }

  test('a list of objects that a recovery cuts off says so, and leaves no object out', async () => {
    await withListBegun(async (link, { keyVersionIds, next }) => {
      await link.connection.recover('initialize');
      await expect(link.call('list', { from: next })).rejects.toMatchObject({ failure: { kind: 'failed', rv: 'the list was cut off' } });
      expect((await link.call('list', { from: 0 })).objects).toHaveLength(keyVersionIds.length);
    });
  });

  test('a list of objects goes on when the token is tried out in the middle of it', async () => {
    await withListBegun(async (link, { keyVersionIds, objects, next }) => {
      await link.call('probe', {});
      const others = (await link.call('list', { from: next })).objects;
      expect([...objects, ...others].map(({ keyVersionId }) => keyVersionId).toSorted()).toEqual(keyVersionIds.toSorted());
    });
  });

  test('a recovery sends no PIN while calls of the helper do not end, which may hold up its answer', async () => {
    using place = new TempFolder();
    const fault = new FaultModule(place);
    Object.assign(process.env, fault.env);
    await withLink(
      30_000,
      async (link) => {
        link.start();
        await link.ready();
        const before = fault.counts;
        fault.begin('C_GenerateKey', 'hold');
        const checking = link.connection.ask('check', {}).then(() => 'well', String);
        await until(() => fault.counts.held > before.held, 'the module has the call');
        await expect(link.connection.recover('login')).rejects.toMatchObject({ failure: { kind: 'fault', rv: 'calls do not end' } });
        expect(fault.counts.logins).toBe(before.logins);
        fault.end();
        expect(await checking).toBe('well');
        await link.connection.recover('login');
        expect(fault.counts.logins).toBe(before.logins + 1);
      },
      { module: fault.module },
    );
  });

  test('a helper that cannot be started is tried again until it can', async () => {
    const node = process.execPath;
    await withLink(5000, async (link, startWith, folder) => {
      startWith(folder.join('absent'));
      link.start();
      await until(() => link.state === 'down', 'it is down');
      expect(link.lastFailure).toMatchObject({ kind: 'fault' });
      await delay(500);
      startWith(node);
      await until(() => link.state === 'ok', 'it has come back by itself');
    });
  });

  test('a token that was away for so long that it is looked for seldom: who asks has it as soon as it is back', async () => {
    const seldom = { next: () => 3_600_000, isSlow: true };
    await withLink(
      5000,
      async (link, _startWith, folder) => {
        const [tokens, away] = [folder.join('tokens'), folder.join('away')];
        renameSync(tokens, away);
        mkdirSync(tokens);
        link.start();
        await until(() => link.state === 'down', 'it is down');
        expect(link.lastFailure).toMatchObject({ kind: 'noToken' });
        const asked = (): Promise<boolean> =>
          link.call('check', {}).then(
            () => true,
            () => false,
          );
        expect(await asked()).toBe(false);
        rmdirSync(tokens);
        renameSync(away, tokens);
        await until(asked, 'it is there for who asks');
      },
      { waits: seldom },
    );
  });

  test('a helper that has made so many keys that it may have leaked is replaced, and nobody notices', async () => {
    await withLink(
      5000,
      async (link) => {
        link.start();
        await link.ready();
        const { pid } = link.connection;
        let failed = 0;
        const check = (): Promise<unknown> => link.call('check', {}).catch(() => (failed += 1)); // makes one
        for (let made = 0; made < 5000; made += 100) await Promise.all(Array.from({ length: 100 }, check));
        while (link.connection.pid === pid || link.state !== 'ok') await Promise.all([delay(20), check()]);
        await check();
        expect(failed).toBe(0);
        expect(link.recoveries).toBe(0);
        expect(link.lastFailure).toBeUndefined();
        expect(link.connection.isWornOut).toBe(false);
      },
      { checkIntervalMs: 100 },
    );
  });

  test('a call that comes before the token is open is answered, and costs no helper', async () => {
    const helper = new HelperProcess(1);
    try {
      for (let turn = 0; turn < 2; turn += 1)
        await expect(helper.ask('list', { from: 0 }, 10_000)).rejects.toMatchObject({ failure: { kind: 'fault', rv: 'no token is open' } });
      expect(helper.isRunning).toBe(true);
    } finally {
      await helper.kill();
    }
  });

  test('a helper that takes longer to start than a call may, as on a busy host, is waited for', async () => {
    const node = process.execPath;
    await withLink(2000, async (link, startWith, folder) => {
      link.start();
      await link.ready();
      const slow = folder.join('slow-node');
      writeFileSync(slow, `#!/bin/sh\nsleep 3\nexec ${node} "$@"\n`, { mode: 0o700 });
      startWith(slow);
      process.kill(link.connection.pid ?? 0, 'SIGKILL');
      await link.call('check', {}).catch(() => undefined); // finds it gone
      await until(() => link.state === 'ok', 'it is there again', 20_000);
      expect(link.recoveries).toBe(1);
    });
  });

  test.each(['C_Initialize', 'C_GetSlotList', 'C_OpenSession'])(
    'a module that hangs in %s when the agent starts is ended as soon as at any other time',
    async (call) => {
      await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 1000 } });
      const { rig, fault } = faulty;
      await rig.agent?.end();
      fault.begin(call, 'hang');
      await rig.start();
      const kms = await rig.client();
      await until(async () => (await tokenOf(kms))?.hsm?.lastError?.includes('no answer') ?? false, 'the hang is noticed', 30_000); // keys may take two minutes to make
      fault.end();
      await until(async () => (await codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' }))) === 'no error', 'it is there', 30_000);
    },
  );

  test('a token that does not tell its mechanisms is sick, and mended', async () => {
    await using faulty = await FaultyRig.make({ overrides: { checkIntervalMs: 200 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    fault.begin('C_GetMechanismList', 0x30);
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('ERR_HSM_UNAVAILABLE');
    await until(async () => (await tokenOf(kms))?.hsm?.lastError === 'C_GetMechanismList answered CKR_DEVICE_ERROR', 'status says what is sick');
    fault.end();
    await until(async () => (await codeOf(kms.advanceEncrypt({ keyId, plaintext: Buffer.from('x') }))) === 'no error', 'it is well');
    expect((await tokenOf(kms))?.hsm?.recoveries).toBeGreaterThan(0);
  });

  test.each(['C_CloseSession', 'C_Finalize', 'C_FindObjectsFinal', 'C_GetMechanismInfo'])(
    'a token of which %s fails works on, or again once it is well',
    async (call) => {
      await using faulty = await FaultyRig.make();
      const { rig, fault } = faulty;
      const kms = await rig.client();
      const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
      const sign = (): Promise<string> => codeOf(kms.sign({ keyId, message: Buffer.from('x') }));
      fault.begin(`${call},C_Sign`, 0x30); // each failure closes a session, and climbs the ladder over C_Finalize
      expect(['ERR_HSM_UNAVAILABLE', 'no error']).toContain(await sign());
      fault.begin(call, 0x30);
      expect(['ERR_HSM_UNAVAILABLE', 'no error']).toContain(await sign());
      fault.end();
      await until(async () => (await sign()) === 'no error', 'it signs again');
      expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
    },
  );

  test('a token that refuses something in words of a sick one: a recovery does not try it out again, and what is known to work is not doubted with it', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 10_000 } });
    const { rig, fault } = faulty;
    await rig.agent?.end();
    fault.begin('C_UnwrapKey', 0x6);
    await rig.start();
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is there', 30_000);
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    fault.begin('C_UnwrapKey,C_SignInit', 0x6);
    await delay(1100); // it is asked again at most so often
    await kms.createKey({ protectionLevel: 'HSM' });
    expect((await tokenOf(kms))?.hsm?.mechanisms).toContain('ECDSA_SHA_256 with EC_P256');
    expect((await tokenOf(kms))?.hsm?.refused?.join()).toContain('unwrapping with RSAES_OAEP_SHA_1 (C_UnwrapKey answered CKR_FUNCTION_FAILED)');
    fault.begin('C_GenerateKeyPair', 'hang'); // as of one that takes its time
    await killHelper(kms);
    expect(await codeOf(kms.sign({ keyId, message: Buffer.from('x') }))).toBe('no error');
  });

  test('what a token refuses while it is sick at the start is tried again: it offers everything once it is well', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    await rig.agent?.end();
    fault.begin('C_Sign,C_Decrypt', 0x30);
    await rig.start();
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is there');
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' }))).toBe('ERR_UNSUPPORTED_ALGORITHM');
    fault.end();
    await until(async () => (await codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' }))) === 'no error', 'it makes what it refused');
    expect((await tokenOf(kms))?.hsm?.mechanisms).toContain('AES_GCM');
    await until(() => rig.log.includes('the token hsm offers AES_GCM after all'), 'the log says so');
    expect(`${rig.agent?.startLog}${rig.log}`).toContain('the token hsm does not offer AES_GCM (C_Decrypt answered CKR_DEVICE_ERROR)');
  });
});
