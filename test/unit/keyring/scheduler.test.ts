import { expect, test } from 'vitest';
import type { Key } from '../../../daemon/src/keyring/key.ts';
import { Life } from '../../../daemon/src/keyring/life.ts';
import { MemoryKeyring } from '../../kit/memory-keyring.ts';

const dayMs = 86_400_000;
const never = (): boolean => false;

test('many keys whose window ends at once: destroyed one by one, and the file is scrubbed once', async () => {
  const { keyring, creation, scheduler, clock, acts } = await MemoryKeyring.make();
  const life = new Life(keyring);
  for (let made = 0; made < 5; made += 1) life.scheduleDeletion(await creation.createKey({ uid: 0 }, {}), 7);
  clock.nowMs += 7 * dayMs;
  clock.runningMs += 7 * dayMs;
  let scrubs = 0;
  keyring.scrub = () => {
    scrubs += 1;
  };
  await scheduler.look(false, never);
  expect(acts).toHaveLength(5);
  expect(keyring.keyCount).toBe(0);
  expect(scrubs).toBe(1);
});

test('a deletion of before running time was counted: its window goes on from the first look by a clock that is believed', async () => {
  const { keyring, creation, scheduler, clock } = await MemoryKeyring.make();
  const { windowEnd: _, ...old } = new Life(keyring).scheduleDeletion(await creation.createKey({ uid: 0 }, {}), 7);
  keyring.commit({ keys: [old satisfies Key] });
  clock.isBelievable = false;
  clock.nowMs += 400 * dayMs;
  await scheduler.look(true, never);
  expect(keyring.keyById(old.keyId)).toEqual(old);
  clock.nowMs -= 395 * dayMs;
  clock.isBelievable = true;
  await scheduler.look(true, never);
  expect(keyring.keyById(old.keyId).windowEnd).toBe(2 * dayMs);
  clock.runningMs += 2 * dayMs;
  clock.nowMs += 2 * dayMs;
  await scheduler.look(false, never);
  expect(keyring.findKey(old.keyId)).toBeUndefined();
});

test('a window that was counted by a count that is lost: the time that was shown decides', async () => {
  const { keyring, creation, scheduler, clock } = await MemoryKeyring.make();
  clock.runningMs = 5000 * dayMs;
  const { keyId } = new Life(keyring).scheduleDeletion(await creation.createKey({ uid: 0 }, {}), 7);
  clock.runningMs = 0;
  await scheduler.look(true, never);
  expect(keyring.keyById(keyId).windowEnd).toBe(7 * dayMs);
});

test('a key that cannot be read: the others are looked at all the same, and it is said', async () => {
  const { keyring, creation, scheduler, clock, acts, failures } = await MemoryKeyring.make();
  const [broken, good] = [await creation.createKey({ uid: 0 }, { rotationInterval: '7d' }), await creation.createKey({ uid: 0 }, { rotationInterval: '7d' })];
  const findKey = keyring.findKey.bind(keyring);
  keyring.findKey = (keyId) => {
    if (keyId === broken.keyId) throw new RangeError('a key record is shorter than it says');
    return findKey(keyId);
  };
  clock.nowMs += 7 * dayMs;
  for (let look = 0; look < 3; look += 1) await scheduler.look(false, never);
  expect(acts).toEqual([`rotate ${good.keyId}`]);
  expect(failures).toEqual([broken.keyId]); // once
  expect([...scheduler.failing]).toEqual([[broken.keyId, 'ERR_INTERNAL']]);
  keyring.findKey = findKey;
  await scheduler.look(false, never);
  expect(acts).toEqual([`rotate ${good.keyId}`, `rotate ${broken.keyId}`]);
  expect([...scheduler.failing]).toEqual([]);
});

test('a clock that jumps there and back again, and is believed in between: a key is rotated once by it, not each time', async () => {
  const { creation, scheduler, clock, acts } = await MemoryKeyring.make();
  const { keyId } = await creation.createKey({ uid: 0 }, { rotationInterval: '7d' });
  for (let glitch = 0; glitch < 5; glitch += 1) {
    clock.isBelievable = false;
    clock.nowMs += 400 * dayMs;
    await scheduler.look(true, never);
    clock.nowMs -= 400 * dayMs - 60_000;
    clock.isBelievable = true;
    await scheduler.look(true, never);
  }
  expect(acts).toEqual([`rotate ${keyId}`]);
  clock.nowMs += 800 * dayMs;
  await scheduler.look(true, never);
  await scheduler.look(true, never);
  expect(acts).toEqual([`rotate ${keyId}`, `rotate ${keyId}`]);
});
