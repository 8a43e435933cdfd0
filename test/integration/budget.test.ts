import { renameSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { type AgentClient, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { agentProgram, passphrase, run, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, hourMs, makeVault, startMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';
import { codeOf } from '../kit/outcome.ts';

const message = utf8('what is kept');
const settings = { maxUsesPerVersion: 100, useBlockSize: 8 };

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;
async function start(options: Parameters<typeof ClockedAgent.start>[2] = {}): Promise<void> {
  agent = await ClockedAgent.start(folder, settings, options);
  kms = agent.kms;
}
beforeEach(async () => {
  folder = new TempFolder();
  await makeVault(folder);
  await start();
  await kms.createKey({ aliasName: 'alias/default' });
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const useCount = async (keyId: string): Promise<number> => (await kms.describeKey({ keyId })).useCount;
const times = async (count: number, work: () => Promise<unknown>): Promise<void> => {
  for (let done = 0; done < count; done += 1) await work();
};

test('raw operations: to the limit and no further, for good, with a hint to the advance ones; decrypt goes on', async () => {
  const { keyId } = await kms.createKey();
  const sealed = await kms.encrypt({ keyId, plaintext: message });
  await times(99, () => kms.encrypt({ keyId, plaintext: message }));
  const refusal = { code: 'ERR_LIMIT_EXCEEDED', details: { hint: expect.stringContaining('advanceEncrypt') } };
  await expect(kms.encrypt({ keyId, plaintext: message })).rejects.toMatchObject(refusal);
  await expect(kms.generateDataKey({ keyId })).rejects.toMatchObject(refusal);
  expect((await kms.decrypt(sealed)).plaintext).toEqual(message);
  await kms.lock();
  await kms.unlock({ passphrase });
  await expect(kms.encrypt({ keyId, plaintext: message })).rejects.toMatchObject(refusal);
  expect(await useCount(keyId)).toBe(100);
});

test.each([
  ['advanceEncrypt', () => kms.advanceEncrypt({ keyId: 'alias/busy', plaintext: message })],
  ['advanceGenerateDataKey', () => kms.advanceGenerateDataKey({ keyId: 'alias/busy' })],
  ['generateDataKeyWithoutPlaintext', () => kms.generateDataKeyWithoutPlaintext({ keyId: 'alias/busy' })],
  [
    'reEncrypt',
    async () => {
      const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: 'alias/default', plaintext: message });
      return await kms.reEncrypt({ ciphertextBlob, destinationKeyId: 'alias/busy' });
    },
  ],
] as const)('%s: moves to a new version before the limit, and no version ever passes it', async (_name, work) => {
  const { keyId } = await kms.createKey({ aliasName: 'alias/busy' });
  await times(98, () => kms.advanceEncrypt({ keyId, plaintext: message }));
  await times(4, work);
  const versions = await Array.fromAsync(kms.listAllKeyVersions({ keyId }));
  expect(versions.map((version) => version.useCount)).toEqual([99, 3]);
  expect(agent.log).toContain('"act":"budget"');
});

test('many at once at the limit: one new version, and no count is lost', async () => {
  const { keyId } = await kms.createKey();
  await times(90, () => kms.advanceEncrypt({ keyId, plaintext: message }));
  await Promise.all(Array.from({ length: 100 }, () => kms.advanceEncrypt({ keyId, plaintext: message })));
  const counts = (await Array.fromAsync(kms.listAllKeyVersions({ keyId }))).map((version) => version.useCount);
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(190);
  expect(counts.length).toBe(2);
  for (const count of counts) expect(count).toBeLessThanOrEqual(100);
});

test('kill -9 at any point: the count after it is never less than what was answered, and at most a block more', async () => {
  const { keyId } = await kms.createKey();
  let answered = 0;
  for (let round = 0; round < 12; round += 1) {
    let failed = false;
    const workers = Array.from({ length: 4 }, async () => {
      while (!failed) {
        await kms.encrypt({ keyId, plaintext: message }, { timeoutMs: 2000 }).then(
          () => {
            answered += 1;
          },
          () => {
            failed = true; // the agent was killed: that is the experiment
          },
        );
        if (answered > 4 + round * 5) failed = true;
      }
    });
    const first = answered;
    if (round % 2 === 0) await expect.poll(() => answered, { interval: 1, timeout: 10_000 }).toBeGreaterThan(first); // on a busy machine no answer may come in time
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 6));
    await agent.end('SIGKILL');
    await Promise.all(workers);
    const before = answered;
    await start({ from: agent.now });
    const counted = await useCount(keyId);
    expect(counted).toBeGreaterThanOrEqual(before);
    expect(counted).toBeLessThanOrEqual(before + (round + 1) * (8 + 4));
    answered = counted;
    if (counted > 60) break;
  }
  expect(answered).toBeGreaterThan(0);
});

test('a lock: the counts that are not used are given back', async () => {
  const { keyId } = await kms.createKey();
  await times(3, () => kms.encrypt({ keyId, plaintext: message }));
  await kms.lock();
  await kms.unlock({ passphrase });
  expect(await useCount(keyId)).toBe(3);
});

test('three quarters of the budget: status names the key', async () => {
  const { keyId } = await kms.createKey();
  await times(74, () => kms.encrypt({ keyId, plaintext: message }));
  expect((await kms.status()).warnings?.join()).not.toContain(keyId);
  await kms.encrypt({ keyId, plaintext: message });
  expect((await kms.status()).warnings?.join()).toContain(keyId);
});

test('restore: the counts are not known, so the first advance encryption of each key makes a new version, once', async () => {
  const { keyId } = await kms.createKey();
  const before = await kms.advanceEncrypt({ keyId, plaintext: message });
  await agent.end();
  const at = ['--data-dir', folder.join('vault')];
  expect((await run(agentProgram, ['backup', folder.join('backup.db'), ...at])).code).toBe(0);
  using restored = new TempFolder();
  expect((await run(agentProgram, ['restore', folder.join('backup.db'), '--data-dir', restored.join('vault')])).code).toBe(0);
  for (let round = 0; round < 2; round += 1) {
    await using there = await ClockedAgent.start(restored, settings);
    expect((await there.kms.advanceDecrypt(before)).plaintext).toEqual(message);
    const after = await there.kms.advanceEncrypt({ keyId, plaintext: message });
    expect(after.keyVersionId).not.toBe(before.keyVersionId);
    expect(await there.kms.describeKey({ keyId })).toMatchObject({ keyVersionCount: 2, primaryKeyVersionId: after.keyVersionId });
  }
  await start({ from: agent.now });
  expect((await kms.advanceEncrypt({ keyId, plaintext: message })).keyVersionId).toBe(before.keyVersionId);
});

test('three quarters of the budget: still named after a restart before anybody uses the key, and in the log once', async () => {
  const { keyId } = await kms.createKey();
  await times(80, () => kms.encrypt({ keyId, plaintext: message }));
  expect(agent.log.match(new RegExp(`${keyId} has a version that used three quarters`, 'g'))).toHaveLength(1);
  await agent.end();
  await start({ from: agent.now });
  expect((await kms.status()).warnings?.join()).toContain(keyId);
  await kms.advanceEncrypt({ keyId, plaintext: message });
  expect((await kms.status()).warnings?.join()).toContain(keyId);
});

test('restore: what may have been encrypted since the backup has its share, so that raw operations do not pass the limit either', async () => {
  const { keyId } = await kms.createKey();
  await times(40, () => kms.encrypt({ keyId, plaintext: message }));
  const at = ['--data-dir', folder.join('vault')];
  await kms.lock();
  expect((await run(agentProgram, ['backup', folder.join('backup.db'), ...at])).code).toBe(0);
  using restored = new TempFolder();
  expect((await run(agentProgram, ['restore', folder.join('backup.db'), '--data-dir', restored.join('vault')])).code).toBe(0);
  await using there = await ClockedAgent.start(restored, settings);
  for (let more = 0; more < 10; more += 1) await there.kms.encrypt({ keyId, plaintext: message });
  await expect(there.kms.encrypt({ keyId, plaintext: message })).rejects.toMatchObject({ code: 'ERR_LIMIT_EXCEEDED' });
  expect((await there.kms.advanceEncrypt({ keyId, plaintext: message })).keyId).toBe(keyId);
});

test('an imported key at its limit: the hint does not send to advanceEncrypt, which has nowhere to move', async () => {
  await kms.scheduleKeyDeletion({ keyId: (await kms.describeKey({ keyId: 'alias/default' })).keyId, pendingWindowInDays: 7 });
  await agent.advance(7 * 24 * hourMs);
  await expect.poll(async () => (await kms.listAliases()).aliases.length).toBe(0);
  const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
  await importMaterial(kms, keyId, new Uint8Array(32).fill(7));
  await times(100, () => kms.advanceEncrypt({ keyId, plaintext: message }));
  await expect(kms.advanceEncrypt({ keyId, plaintext: message })).rejects.toMatchObject({
    code: 'ERR_LIMIT_EXCEEDED',
    details: { hint: expect.stringContaining('use a new key') },
  });
});

test('explain of a key at its limit: advance operations succeed where the key can move on to a new version, and nowhere else', async () => {
  const [none, limit] = ['no error', 'ERR_LIMIT_EXCEEDED'];
  const blocks = async (keyId: string): Promise<unknown> => {
    const methods = ['advanceEncrypt', 'advanceGenerateDataKey', 'generateDataKeyWithoutPlaintext', 'reEncrypt', 'encrypt', 'advanceDecrypt'] as const;
    const [first, ...others] = await Promise.all(methods.map(async (method) => (await kms.explain({ method, keyId })).blockedBy ?? none));
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: message }))).toBe(first);
    return [first, ...others];
  };
  const { keyId: generated } = await kms.createKey();
  await times(100, () => kms.encrypt({ keyId: generated, plaintext: message }));
  expect(await blocks(generated)).toEqual([none, none, none, none, limit, none]);
  const { keyId: full } = await kms.createKey();
  for (let made = 1; made < 1000; made += 1) await kms.createKeyVersion({ keyId: full });
  await times(99, () => kms.advanceEncrypt({ keyId: full, plaintext: message }));
  expect(await blocks(full)).toEqual(Array.from({ length: 6 }, () => none));
  expect(await blocks(full)).toEqual([limit, limit, limit, limit, none, none]);
});

test('lastUsedTime: shown at once, kept over a lock, and after a kill at most an hour behind', async () => {
  const { keyId } = await kms.createKey({ keySpec: 'EC_P256' });
  expect(await kms.describeKey({ keyId })).not.toHaveProperty('lastUsedTime');
  await kms.sign({ keyId, message });
  const first = new Date(startMs).toISOString();
  expect(await kms.describeKey({ keyId })).toMatchObject({ lastUsedTime: first, useCount: 0 });
  await kms.lock();
  await kms.unlock({ passphrase });
  expect(await kms.describeKey({ keyId })).toMatchObject({ lastUsedTime: first });
  await agent.advance(2 * hourMs);
  await kms.sign({ keyId, message });
  await new Promise((resolve) => setTimeout(resolve, 200));
  await agent.end('SIGKILL');
  await start({ from: agent.now });
  expect(await kms.describeKey({ keyId })).toMatchObject({ lastUsedTime: new Date(startMs + 2 * hourMs).toISOString() });
});

test('three quarters of the budget, passed by what a crash counted ahead: said all the same', async () => {
  const { keyId } = await kms.createKey();
  await times(73, () => kms.encrypt({ keyId, plaintext: message }));
  await agent.end('SIGKILL');
  await start({ from: agent.now });
  expect(await useCount(keyId)).toBe(80);
  await kms.encrypt({ keyId, plaintext: message });
  expect((await kms.status()).warnings?.join()).toContain(keyId);
  expect(agent.log).toContain(`${keyId} has a version that used three quarters`);
});

test.each([
  [0, 0],
  [6, 0],
  [0, 3],
])(
  'salvage of a vault whose facts were lost, of a key made before %i restores and after %i: nothing says how often it encrypted, and it encrypts no more',
  async (after, before) => {
    await agent.end();
    const vault = folder.join('vault');
    const lose = (sql: string): void => {
      const db = new DatabaseSync(folder.join('vault', 'vault.db'));
      db.exec(sql);
      db.close();
    };
    const restore = async (times: number): Promise<void> => {
      for (let round = 0; round < times; round += 1) {
        lose("INSERT OR REPLACE INTO meta (name, value) VALUES ('restored', x'01')"); // as restore marks it
        await using _ = await ClockedAgent.start(folder, settings);
      }
    };
    const loseAndSave = async (name: string): Promise<void> => {
      await agent.end();
      lose("DELETE FROM record WHERE kind = 'facts'");
      const saving = ['salvage', folder.join(name), '--data-dir', vault, '--passphrase-fd', '3'];
      expect(await run(agentProgram, saving, { secret: `${passphrase}\n` })).toMatchObject({ stderr: '', stdout: expect.anything() as unknown });
      renameSync(vault, folder.join(`${name}-damaged`));
      renameSync(folder.join(name), vault);
      await start();
    };
    const expectSpent = async (keyId: string): Promise<void> => {
      const wanted = { code: 'ERR_LIMIT_EXCEEDED' };
      await expect(kms.encrypt({ keyId, plaintext: message })).rejects.toMatchObject(wanted);
      const { keyVersionId } = await kms.advanceEncrypt({ keyId, plaintext: message });
      expect(await kms.describeKey({ keyId })).toMatchObject({ primaryKeyVersionId: keyVersionId, keyVersionCount: 2 });
    };
    await restore(before);
    await start();
    const { keyId } = await kms.createKey();
    const { ciphertextBlob, iv } = await kms.encrypt({ keyId, plaintext: message });
    await agent.end();
    await restore(after);
    await start();
    await loseAndSave('saved');
    await expectSpent(keyId);
    expect((await kms.decrypt({ keyId, ciphertextBlob, ...(iv ? { iv } : {}) })).plaintext).toEqual(message);
    const { keyId: later } = await kms.createKey();
    await times(60, () => kms.encrypt({ keyId: later, plaintext: message })); // the whole limit is its own
    await loseAndSave('saved-again');
    await expectSpent(later);
  },
);
