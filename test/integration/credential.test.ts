import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, isAgentError } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { agentProgram, TempFolder as Folder, initVault, passphrase, run, TestAgent } from '../kit/agent.ts';
import { auditRecords } from '../kit/audit.ts';
import { addKeyslot, credentials, newSecret } from '../kit/credential.ts';

/** What unlock without a secret is answered. */
async function whyLocked(agent: TestAgent): Promise<string> {
  const refused: unknown = await (await agent.client()).unlock({}).catch((error: unknown) => error);
  return isAgentError(refused, 'ERR_UNLOCK_FAILED') ? (refused.details.hint ?? '') : 'it opened';
}

describe('a credential keyslot', () => {
  test('what was locked stays locked in the next agent, however the last one ended; an unlock ends that', async () => {
    using folder = new Folder();
    await initVault(folder);
    const secret = newSecret();
    await addKeyslot(folder, secret);
    const env = credentials(folder, secret);
    const stateAfter = async (end: (agent: TestAgent) => Promise<unknown>): Promise<string> => {
      await using agent = await TestAgent.serve(folder, { env });
      const { state } = await (await agent.client()).status();
      await end(agent);
      return state;
    };
    const kill = (agent: TestAgent): Promise<unknown> => agent.end('SIGKILL');
    const lock = async (agent: TestAgent): Promise<unknown> => await (await agent.client()).lock();
    const unlock = async (agent: TestAgent): Promise<unknown> => await (await agent.client()).unlock({});
    expect(await stateAfter(kill)).toBe('UNLOCKED');
    expect(await stateAfter((agent) => lock(agent).then(() => kill(agent)))).toBe('UNLOCKED');
    expect(await stateAfter(kill)).toBe('LOCKED');
    expect(await stateAfter((agent) => agent.end())).toBe('LOCKED');
    expect(await stateAfter((agent) => unlock(agent).then(() => kill(agent)))).toBe('LOCKED');
    expect(await stateAfter((agent) => agent.end())).toBe('UNLOCKED');
    expect(await stateAfter(lock)).toBe('UNLOCKED');
    writeFileSync(folder.join('vault', 'locked'), randomUUID()); // the machine has started anew
    expect(await stateAfter(kill)).toBe('UNLOCKED');
  });

  test('a lock that does not come to its end: the next agent is locked, although the credential would open it', async () => {
    using folder = new Folder();
    await initVault(folder);
    const secret = newSecret();
    await addKeyslot(folder, secret);
    const config = folder.join('config.json');
    writeFileSync(config, JSON.stringify({ lockTimeoutMs: 100 }), { mode: 0o600 });
    const options = { env: credentials(folder, secret) };
    const agent = await TestAgent.serve(folder, '--config', config, options);
    const kms = await connect({ socketPath: agent.socketPath, retry: false });
    const exited = new Promise<number | null>((resolve) => agent.child.once('exit', resolve));
    const makings = Array.from({ length: 16 }, () => kms.createKey({ keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }).catch((error: unknown) => error));
    await expect.poll(async () => (await kms.status()).counts?.inFlight).toBeGreaterThan(16);
    const locking = kms.lock().catch((error: unknown) => error);
    expect(await exited).toBe(70);
    await Promise.all([...makings, locking]);
    await using again = await TestAgent.serve(folder, '--config', config, options);
    expect((await (await again.client()).status()).state).toBe('LOCKED');
  });

  test('opens the vault before the first caller is answered, and again by unlock without a secret; the passphrase opens it as before', async () => {
    using folder = new Folder();
    await initVault(folder);
    const secret = newSecret();
    const keyslotId = await addKeyslot(folder, secret);
    expect(readFileSync(folder.join('vault', 'vault.db')).includes(secret)).toBe(false);
    await using agent = await TestAgent.serve(folder, { env: credentials(folder, `${secret}\n`) });
    const kms = await agent.client();
    expect(await kms.status()).toMatchObject({ state: 'UNLOCKED' });
    const { keyslots } = await kms.listKeyslots();
    expect(keyslots.find((slot) => slot.keyslotId === keyslotId)).toMatchObject({ type: 'credential', lastUnlockTime: expect.any(String) as string });
    await kms.lock();
    await kms.unlock({});
    await kms.lock();
    await kms.unlock({ keyslotId });
    await kms.lock();
    await kms.unlock({ passphrase });
    expect(auditRecords(folder.join('vault', 'audit')).filter(({ operation }) => operation === 'unlock').length).toBeGreaterThan(3);
    await kms.removeKeyslot({ keyslotId, proof: { passphrase } });
    await kms.lock();
    await expect(kms.unlock({})).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
  });

  test.each([
    ['missing', undefined, 'is missing'],
    ['of another vault', newSecret(), 'opens no keyslot of this vault'],
    ['empty', '', 'does not hold the secret of a keyslot'],
    ['too short', randomBytes(31).toString('base64'), 'does not hold the secret of a keyslot'],
    ['not canonical', `${newSecret()}==`, 'does not hold the secret of a keyslot'],
  ])('a credential that is %s: locked, with a reason, nothing made anew, and a person can unlock', async (_name, text, words) => {
    using folder = new Folder();
    await initVault(folder);
    await addKeyslot(folder, newSecret());
    await using agent = await TestAgent.serve(folder, { env: credentials(folder, text) });
    const kms = await agent.client();
    expect(await kms.status()).toMatchObject({ state: 'LOCKED' });
    expect(await whyLocked(agent)).toBe(`the credential kms-agent-root ${words}`);
    if (text) expect(agent.log).not.toContain(text);
    await kms.unlock({ passphrase });
    expect((await kms.listKeyslots()).keyslots.map(({ type }) => type).sort()).toEqual(['credential', 'passphrase', 'recovery']);
  });

  test('a credential that cannot be read: locked, with a reason', async () => {
    using folder = new Folder();
    await initVault(folder);
    await addKeyslot(folder, newSecret());
    const env = credentials(folder);
    mkdirSync(folder.join('credentials', 'kms-agent-root')); // read(2) of a folder fails for root too
    await using agent = await TestAgent.serve(folder, { env });
    expect(await whyLocked(agent)).toBe('the credential kms-agent-root cannot be read');
  });

  test('keyslot add credential: the proof is asked, the secret is whole, the agent is stopped, and only root writes a credential store', async () => {
    using folder = new Folder();
    await initVault(folder);
    expect(await addKeyslot(folder, newSecret(), 'not the passphrase')).toContain('ERR_UNLOCK_FAILED');
    expect(await addKeyslot(folder, 'short')).toContain('32 bytes in base64');
    {
      await using _agent = await TestAgent.serve(folder);
      expect(await addKeyslot(folder, newSecret())).toContain('Another agent holds the vault');
    }
    const args = ['keyslot', 'add', 'credential', '--data-dir', folder.join('nothing'), '--passphrase-fd', '3', '--secret-fd', '3'];
    expect(await run(agentProgram, args, { secret: passphrase })).toMatchObject({ code: 4, stderr: expect.stringContaining('ERR_NOT_INITIALIZED') as string });
  });
});

test('keyslots that are changed while the agent is stopped are in the record at the next unlock, once; those that it changes itself are not said again', async () => {
  using folder = new Folder();
  await initVault(folder);
  const said = (): unknown[] => auditRecords(folder.join('vault', 'audit')).flatMap(({ operation, detail }) => (operation === 'keyslots' ? [detail] : []));
  const unlockOnce = async (): Promise<void> => {
    await using agent = await TestAgent.serve(folder);
    await (await agent.client()).unlock({ passphrase });
  };
  await unlockOnce();
  const keyslotId = await addKeyslot(folder, newSecret());
  {
    await using agent = await TestAgent.serve(folder);
    const kms = await agent.client();
    await kms.unlock({ passphrase });
    expect(said()).toEqual([{ added: `credential ${keyslotId}` }]);
    expect(agent.log).toContain('keyslots were changed while no agent had the vault open');
    await kms.addKeyslot({ type: 'recovery', proof: { passphrase } });
    await kms.removeKeyslot({ keyslotId, proof: { passphrase } });
    await kms.lock();
    await kms.unlock({ passphrase });
  }
  await unlockOnce();
  expect(said()).toHaveLength(1);
  const { code } = await run(agentProgram, ['rekey', '--data-dir', folder.join('vault'), '--passphrase-fd', '3'], { secret: passphrase });
  expect(code).toBe(0);
  await unlockOnce();
  expect(said().at(-1)).toEqual({ added: expect.stringMatching(/^recovery /) as string, removed: expect.stringMatching(/^recovery .*, recovery /) as string });
});
