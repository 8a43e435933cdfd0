import { chmodSync, copyFileSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { utf8 } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { agentProgram, passphrase, run, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, dayMs, makeVault, startMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';

const message = utf8('what is kept');
const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/vault-keyed-check/${name}`, import.meta.url));

/** What is known of the frozen vault, whose key has a check value of before check values had a salt. */
const frozen = JSON.parse(readFileSync(fixture('facts.json'), 'utf8')) as { keyId: string; material: string; blob: string };

const hows = ['rekey', 'salvage', 'both'] as const;
const losses = ['there', 'deleted', 'expired', 'under an unlockLifetime'] as const;

/** A vault with one imported key, of today or frozen, and what its key encrypted. */
async function makeImported(folder: TempFolder, loss: (typeof losses)[number] | 'frozen'): Promise<{ keyId: string; material: Uint8Array; blob: Uint8Array }> {
  const decode = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
  if (loss === 'frozen') {
    mkdirSync(folder.join('vault'), { mode: 0o700 });
    copyFileSync(fixture('vault.db'), folder.join('vault', 'vault.db'));
    chmodSync(folder.join('vault', 'vault.db'), 0o600);
    return { keyId: frozen.keyId, material: decode(frozen.material), blob: decode(frozen.blob) };
  }
  await makeVault(folder);
  await using agent = await ClockedAgent.start(folder);
  const material = crypto.getRandomValues(new Uint8Array(32));
  const limit = loss === 'under an unlockLifetime' ? { unlockLifetime: '1h' } : {};
  const { keyId } = await agent.kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL', ...limit });
  await importMaterial(agent.kms, keyId, material);
  return { keyId, material, blob: (await agent.kms.advanceEncrypt({ keyId, plaintext: message })).ciphertextBlob };
}

/** Takes the material away as its owner or time does. */
async function lose(agent: ClockedAgent, keyId: string, material: Uint8Array, loss: string): Promise<void> {
  const { kms } = agent;
  if (loss === 'deleted') await kms.deleteKeyMaterial({ keyId });
  if (loss !== 'expired') return;
  await importMaterial(kms, keyId, material, { materialExpireTime: new Date(startMs + dayMs).toISOString() });
  await agent.advance(dayMs);
  await expect.poll(() => kms.describeKey({ keyId })).not.toHaveProperty('materialExpireTime');
}

async function giveNewRootKey(folder: TempFolder, how: 'rekey' | 'salvage'): Promise<void> {
  const args = ['--data-dir', folder.join('vault'), '--passphrase-fd', '3'];
  const moved = await run(agentProgram, [how, ...(how === 'salvage' ? [folder.join('saved')] : []), ...args], { secret: `${passphrase}\n` });
  expect([moved.stderr, moved.code]).toEqual(['', 0]);
  if (how === 'rekey') return;
  renameSync(folder.join('vault'), folder.join('damaged'));
  renameSync(folder.join('saved'), folder.join('vault'));
}

async function expectSameOnly(agent: ClockedAgent, keyId: string, material: Uint8Array): Promise<void> {
  const other = Uint8Array.from(material, (byte, index) => (index === 31 ? byte ^ 1 : byte));
  await expect(importMaterial(agent.kms, keyId, other)).rejects.toMatchObject({ code: 'ERR_INVALID_KEY_MATERIAL' });
  expect((await importMaterial(agent.kms, keyId, material)).keyMetadata.keyState).toBe('Enabled');
}

const cases = hows.flatMap((how) => [
  ...losses.map((loss) => [how, 'of today', loss, loss] as const),
  ...(['there', 'deleted', 'expired'] as const).map((loss) => [how, 'frozen', loss, 'frozen'] as const),
]);

test.each(cases)('%s, a vault %s, material %s: the same material is imported again, and no other, before and after', async (how, _age, loss, made) => {
  using folder = new TempFolder();
  const { keyId, material, blob } = await makeImported(folder, made);
  let { now } = await (async () => {
    await using agent = await ClockedAgent.start(folder);
    await lose(agent, keyId, material, loss);
    return agent;
  })();
  for (const step of how === 'both' ? (['rekey', 'salvage'] as const) : [how]) await giveNewRootKey(folder, step);
  for (let round = 0; round < 2; round += 1) {
    await using agent = await ClockedAgent.start(folder, {}, { from: now });
    await expectSameOnly(agent, keyId, material);
    expect((await agent.kms.advanceDecrypt({ ciphertextBlob: blob })).plaintext).toEqual(message);
    await agent.kms.deleteKeyMaterial({ keyId });
    now = agent.now;
  }
});

test('a frozen vault without a new root key: the same material is imported again, and no other', async () => {
  using folder = new TempFolder();
  const { keyId, material } = await makeImported(folder, 'frozen');
  await using agent = await ClockedAgent.start(folder);
  for (let round = 0; round < 2; round += 1) {
    await expectSameOnly(agent, keyId, material);
    await agent.kms.deleteKeyMaterial({ keyId });
    await expectSameOnly(agent, keyId, material);
  }
});
