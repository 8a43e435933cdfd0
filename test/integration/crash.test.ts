import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { type AgentClient, connect } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { canInject, injectFaults } from '../kit/strace.ts';

/** Rounds of `kill -9`: enough to meet every step of a write. */
const rounds = Number(process.env['KMS_AGENT_CRASH_ROUNDS'] ?? 40);
/** Kills on one vault before the next round starts with its survivors. */
const killsARound = 5;

/** Makes keys until the agent is gone; notes each that was acknowledged. */
async function makeKeys(kms: AgentClient, acknowledged: string[]): Promise<void> {
  try {
    for (;;) {
      const { keyId } = await kms.createKey({ keySpec: 'EC_P256' });
      acknowledged.push(keyId);
      await kms.createKeyVersion({ keyId });
    }
  } catch {
    // the agent was killed: that is the experiment
  }
}

test(`kill -9 at random moments during writes, ${rounds * killsARound} times: every acknowledged key is there and works`, { timeout: 600_000 }, async () => {
  using folder = new TempFolder();
  await initVault(folder);
  const acknowledged: string[] = [];
  for (let kill = 0; kill < rounds * killsARound; kill += 1) {
    const agent = await TestAgent.serve(folder);
    const kms = await connect({ socketPath: agent.socketPath, retry: false });
    await kms.unlock({ passphrase });
    const making = [makeKeys(kms, acknowledged), makeKeys(kms, acknowledged)];
    await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 60));
    await agent.end('SIGKILL');
    await Promise.all(making);
    kms.close();
  }
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  await kms.unlock({ passphrase });
  expect(acknowledged.length).toBeGreaterThan(rounds);
  const message = new Uint8Array([1, 2, 3]);
  await Promise.all(acknowledged.map(async (keyId) => kms.assertValidSignature({ ...(await kms.sign({ keyId, message })), message })));
});

test('a vault copied without its log, after two quiet seconds: whole', async () => {
  using folder = new TempFolder();
  using copy = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  await kms.unlock({ passphrase });
  const { keyId } = await kms.createKey();
  await new Promise((resolve) => setTimeout(resolve, 2600));
  mkdirSync(copy.join('vault'), { mode: 0o700 });
  copyFileSync(folder.join('vault', 'vault.db'), copy.join('vault', 'vault.db'));
  await using second = await TestAgent.serve(copy);
  const there = await second.client();
  await there.unlock({ passphrase });
  expect((await there.describeKey({ keyId })).keyId).toBe(keyId);
});

test.skipIf(process.getuid?.() !== 0)(
  'a full disk: changes answer ERR_STORE_UNAVAILABLE, what needs no write goes on, and it heals (needs root for a tmpfs)',
  async () => {
    using folder = new TempFolder();
    mkdirSync(folder.join('vault'), { mode: 0o700 });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k,mode=700', 'tmpfs', folder.join('vault')]);
    try {
      await initVault(folder);
      await using agent = await TestAgent.serve(folder, '--audit-dir', folder.join('audit'));
      const kms = await agent.client();
      await kms.unlock({ passphrase });
      const sealed = await kms.advanceEncrypt({ plaintext: new Uint8Array([7]) });
      execFileSync('sh', ['-c', `head -c 600000 /dev/zero > ${folder.join('vault', 'filler')} 2>/dev/null || true`]);
      const failures = await Promise.allSettled(Array.from({ length: 30 }, () => kms.createKey({ description: 'x'.repeat(8000) })));
      expect(failures.at(-1)).toMatchObject({ reason: { code: 'ERR_STORE_UNAVAILABLE' } });
      const before = (await Array.fromAsync(kms.listAllKeys())).length;
      expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(new Uint8Array([7]));
      expect((await kms.advanceEncrypt({ plaintext: new Uint8Array([7]) })).algorithm).toBe('AES_GCM');
      execFileSync('rm', [folder.join('vault', 'filler')]);
      await kms.createKey();
      await kms.lock();
      await kms.unlock({ passphrase });
      expect(await Array.fromAsync(kms.listAllKeys())).toHaveLength(before + 1);
      await agent.end();
    } finally {
      execFileSync('umount', ['-l', folder.join('vault')]);
    }
  },
);

describe.skipIf(!canInject)('faults under the vault (needs root and strace)', () => {
  test.each([
    ['pwrite64', 'EIO'],
    ['fdatasync,fsync', 'EIO'],
    ['pwrite64,fdatasync,fsync,ftruncate', 'EROFS'],
  ])('%s answers %s: changes are ERR_STORE_UNAVAILABLE, what needs no write goes on, and nothing is lost', async (calls, error) => {
    using folder = new TempFolder();
    await initVault(folder);
    await using agent = await TestAgent.serve(folder);
    const kms = await agent.client();
    await kms.unlock({ passphrase });
    const { keyId } = await kms.createKey();
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: new Uint8Array([7]) });
    {
      await using _faults = await injectFaults(agent.child.pid ?? 0, { calls, error });
      await expect(kms.createKey()).rejects.toMatchObject({ code: 'ERR_STORE_UNAVAILABLE' });
      await expect(kms.updateKeyDescription({ keyId, description: 'lost' })).rejects.toMatchObject({ code: 'ERR_STORE_UNAVAILABLE' });
      expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(new Uint8Array([7]));
      await kms.advanceEncrypt({ keyId, plaintext: new Uint8Array([7]) });
      expect(await kms.describeKey({ keyId })).toMatchObject({ description: '' });
      await kms.lock();
      await kms.unlock({ passphrase });
      expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(new Uint8Array([7]));
    }
    await kms.updateKeyDescription({ keyId, description: 'healed' });
    await agent.end('SIGKILL');
    await using again = await TestAgent.serve(folder);
    const after = await again.client();
    await after.unlock({ passphrase });
    expect(await after.describeKey({ keyId })).toMatchObject({ description: 'healed' });
    expect((await after.advanceDecrypt(sealed)).plaintext).toEqual(new Uint8Array([7]));
  });
});
