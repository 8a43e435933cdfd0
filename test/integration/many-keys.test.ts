import { type AgentClient, utf8 } from '@kms-agent/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { makeVaultWithKeys } from '../kit/many-keys.ts';

const count = 100_000;
const message = utf8('what is kept');

let folder: TempFolder;
let agent: TestAgent;
let kms: AgentClient;
let ids: string[];
beforeAll(async () => {
  folder = new TempFolder();
  ids = await makeVaultWithKeys(folder.join('vault'), count);
  agent = await TestAgent.serve(folder);
  kms = await agent.client();
}, 120_000);
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

test('100,000 keys: opened, while others are answered; described, found by alias, used and locked', async () => {
  const unlocking = kms.unlock({ passphrase });
  let asked = 0;
  const opened = unlocking.then(() => true);
  while (!(await Promise.race([opened, new Promise((resolve) => setTimeout(() => resolve(false), 20))]))) {
    expect(await kms.status()).toMatchObject({ version: expect.any(String) });
    asked += 1;
  }
  expect(asked).toBeGreaterThan(3);
  expect((await kms.status()).counts?.keys).toBe(count + 1);
  for (const at of [0, 1, 999, 50_000, count - 1]) {
    const keyId = ids[at] ?? '';
    expect(await kms.describeKey({ keyId })).toMatchObject({ keyId, tags: { lot: 'many' } });
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: message });
    expect((await kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })).plaintext).toEqual(message);
  }
  expect((await kms.describeKey({ keyId: `alias/many/${ids[70_000]}` })).keyId).toBe(ids[70_000]);
});

test('100,000 keys: listed whole, each once, while keys come and go; a filter that nothing passes ends', async () => {
  const seen = new Map<string, number>();
  const made: string[] = [];
  for await (const { keyId } of kms.listAllKeys({ limit: 1000 })) {
    seen.set(keyId, (seen.get(keyId) ?? 0) + 1);
    if (seen.size % 10_000 === 0) made.push((await kms.createKey()).keyId);
  }
  expect(ids.filter((keyId) => seen.get(keyId) !== 1)).toEqual([]);
  expect([...seen.values()].every((times) => times === 1)).toBe(true);
  expect(made.length).toBeGreaterThan(5);
  expect(await Array.fromAsync(kms.listAllKeys({ filters: { tags: { lot: 'none' } } }))).toEqual([]);
});

test('100,000 keys: a filter by the beginning of an alias is answered at once where it fits few; pages of many are whole', async () => {
  const [some = '', other = ''] = [ids[70_000], ids[500]];
  const aliasPrefix = [`many/${some}`, `alias/many/${other}`, `many/${some.slice(0, -1)}`];
  expect(await kms.listKeys({ filters: { aliasPrefix } })).toEqual({ keys: [other, some].map((keyId) => expect.objectContaining({ keyId })) });
  expect(await kms.listKeys({ filters: { aliasPrefix: ['none/'] } })).toEqual({ keys: [] });
  const named = ids.filter((_, index) => index % 100 === 0);
  for (const prefixes of [['many/'], ['many/', 'alias/many/']]) {
    const listed = await Array.fromAsync(kms.listAllKeys({ limit: 300, filters: { aliasPrefix: prefixes } }));
    expect(listed.map(({ keyId }) => keyId)).toEqual(named.toSorted());
  }
});
