import { createHash } from 'node:crypto';
import { type AgentClient, utf8 } from '@kms-agent/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Aliases } from '../../daemon/src/keyring/aliases.ts';
import { Creation } from '../../daemon/src/keyring/creation.ts';
import type { Key } from '../../daemon/src/keyring/key.ts';
import { Keyring } from '../../daemon/src/keyring/keyring.ts';
import { TokenWork } from '../../daemon/src/keyring/token-work.ts';
import { makeUuid7 } from '../../daemon/src/keyring/uuid7.ts';
import { SoftwareProvider } from '../../daemon/src/providers/software/provider.ts';
import { Vault } from '../../daemon/src/vault/vault.ts';
import { passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { importMaterial } from '../kit/material.ts';

/** Bytes; a quarter of what the agent has, so that it takes a quarter of the keys to fill it. */
const heapBytes = 1_048_576;
/** Of each usage: with what was seen to be 0.9 KiB for a parsed form, two for a key that signs messages and digests, half as much again as the heap. */
const count = 600;
/** How often the heap is looked at. */
const operationsBetweenLooks = 50;
const inFlight = 32;
const message = utf8('what is signed');
const digest = createHash('sha256').update(message).digest();

let folder: TempFolder;
let agent: TestAgent;
let kms: AgentClient;
let ids: { signing: string[]; encrypting: string[] };

function copyOf(pattern: Key): Key {
  const [version] = pattern.versions;
  if (!version) throw new Error('the key has no version');
  const keyVersionId = makeUuid7(Date.now());
  return { ...pattern, keyId: makeUuid7(Date.now()), primaryKeyVersionId: keyVersionId, versions: [{ ...version, keyVersionId }] };
}

/** A vault with very many RSA keys: copies of two, because each would take its time to make, and each takes its own place in memory. */
async function makeVault(dataDir: string): Promise<typeof ids> {
  const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
  const { vault } = await Vault.create({ dataDir, clock: Date.now, argon2Cost, slots: [{ type: 'passphrase', passphrase }] });
  const keyring = new Keyring(vault, [new SoftwareProvider()], { now: Date.now, isBelievable: () => true, runningMs: () => 0, sinceBoot: () => 0 });
  const creation = new Creation(keyring, new Aliases(keyring), new TokenWork({ keyring, onWarning: () => undefined }), () => undefined);
  const copies = async (keyUsage: 'SIGN_VERIFY' | 'ENCRYPT_DECRYPT'): Promise<string[]> => {
    const pattern = await creation.createKey({ uid: process.getuid?.() ?? 0 }, { keySpec: 'RSA_2048', keyUsage });
    const keys = Array.from({ length: count }, () => copyOf(pattern));
    keyring.commit({ keys });
    return keys.map(({ keyId }) => keyId);
  };
  const made = { signing: await copies('SIGN_VERIFY'), encrypting: await copies('ENCRYPT_DECRYPT') };
  vault.close();
  return made;
}

beforeAll(async () => {
  folder = new TempFolder();
  ids = await makeVault(folder.join('vault'));
  const flags = `--disable-sigusr1 --secure-heap=${heapBytes} --secure-heap-min=2 --expose-gc`; // those of the bin
  agent = await TestAgent.serve(folder, { command: ['sh', '-c', `exec "$0" ${flags} "$@"`] });
  kms = await agent.client();
  await kms.unlock({ passphrase });
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

/** Share of the secure heap that is in use, by the agent's own words. */
async function shareInUse(): Promise<number> {
  const { protections = [] } = await kms.status();
  const [, used = '', total = ''] = /: (\d+) of (\d+) bytes in use$/.exec(protections.find(({ name }) => name === 'secureHeap')?.detail ?? '') ?? [];
  return Number(used) / Number(total);
}

/** Runs work for each of them, so many at a time. */
async function forEach(keyIds: readonly string[], work: (keyId: string) => Promise<unknown>): Promise<void> {
  const rest = [...keyIds];
  const worker = async (): Promise<void> => {
    for (let keyId = rest.pop(); keyId !== undefined; keyId = rest.pop()) await work(keyId);
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
}

test('more private keys than the secure heap holds, used side by side: none fails, and the heap is never full', async () => {
  let [highest, done] = [0, 0];
  const look = async (): Promise<void> => {
    done += 1;
    if (done % operationsBetweenLooks === 0) highest = Math.max(highest, await shareInUse());
  };
  const sealed = (await kms.encrypt({ keyId: ids.encrypting[0] ?? '', plaintext: message })).ciphertextBlob; // the copies open it all
  await Promise.all([
    forEach(ids.signing, async (keyId) => {
      await kms.sign({ keyId, message });
      await kms.sign({ keyId, message: digest, messageType: 'DIGEST' });
      await look();
    }),
    forEach(ids.encrypting, async (keyId) => {
      expect((await kms.decrypt({ keyId, ciphertextBlob: sealed })).plaintext).toEqual(message);
      await look();
    }),
  ]);
  const { keyId } = await kms.createKey({ origin: 'EXTERNAL', aliasName: 'alias/default' });
  await importMaterial(kms, keyId, new Uint8Array(32).fill(7)); // a pair is made and parsed in what is left
  console.info(`at most ${Math.round(highest * 100)} % of the secure heap were in use, for ${2 * count} RSA_2048 keys`);
  expect(highest).toBeGreaterThan(0.2);
  expect(highest).toBeLessThan(0.95);
}, 240_000);
