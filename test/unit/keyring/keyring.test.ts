import { expect, test } from 'vitest';
import { initialVersion } from '../../../daemon/src/keyring/key.ts';
import { decodeKey, encodeKey } from '../../../daemon/src/keyring/record.ts';
import { MemoryKeyring } from '../../kit/memory-keyring.ts';

/** How often others had their turn while something went on. */
async function countTurns(work: Promise<unknown>): Promise<number> {
  let turns = 0;
  let isDone = false;
  const counting = (): void => {
    turns += 1;
    if (!isDone) setImmediate(counting);
  };
  setImmediate(counting);
  await work.finally(() => {
    isDone = true;
  });
  return turns;
}

test('lock with very many used keys: others have their turn, and every count is exact', async () => {
  const { keyring, creation } = await MemoryKeyring.make();
  const keys = await Promise.all(Array.from({ length: 1000 }, () => creation.createKey({ uid: 0 }, {})));
  for (const key of keys) {
    const version = keyring.use(key, initialVersion(key));
    version.reservedUses = 100;
    version.useCount = 3;
  }
  const written: number[] = [];
  const commit = keyring.commit.bind(keyring);
  keyring.commit = (changes) => {
    written.push(...(changes.keys ?? []).map((key) => initialVersion(decodeKey(key.keyId, Buffer.from(encodeKey(key)))).useCount));
    commit(changes);
  };
  expect(await countTurns(keyring.lock())).toBeGreaterThan(5);
  expect(written).toEqual(Array.from({ length: 1000 }, () => 3));
  expect(keyring.keyCount).toBe(0);
});

test('lock without time for counts: forgets every key all the same', async () => {
  const { keyring, creation } = await MemoryKeyring.make();
  const key = await creation.createKey({ uid: 0 }, {});
  keyring.use(key, initialVersion(key));
  const { material } = initialVersion(key);
  const before = keyring.vault.revision;
  let after = before;
  const lock = keyring.vault.lock.bind(keyring.vault);
  keyring.vault.lock = () => {
    after = keyring.vault.revision;
    lock();
  };
  await keyring.lock(0);
  expect(after).toBe(before);
  expect(material.every((byte) => byte === 0)).toBe(true);
});

test('a key that a list looks at: parsed for that look and not kept; one that is used is kept', async () => {
  const { keyring, creation } = await MemoryKeyring.make();
  const key = await creation.createKey({ uid: 0 }, {});
  const { keyring: opened } = await MemoryKeyring.make();
  opened.take({ kind: 'key', id: key.keyId, plaintext: encodeKey(key) });
  expect(opened.peekKey(key.keyId)).toEqual(opened.peekKey(key.keyId));
  expect(opened.peekKey(key.keyId)).not.toBe(opened.peekKey(key.keyId));
  expect(opened.findKey(key.keyId)).toBe(opened.findKey(key.keyId));
  expect(opened.peekKey(key.keyId)).toBe(opened.findKey(key.keyId));
  expect(keyring.keyCount).toBe(1);
});
