import { AgentError } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import type { Key } from '../../../daemon/src/keyring/key.ts';
import { Life } from '../../../daemon/src/keyring/life.ts';
import type { Scheduler } from '../../../daemon/src/keyring/scheduler.ts';
import { describeWarnings } from '../../../daemon/src/keyring/warnings.ts';
import { MemoryKeyring } from '../../kit/memory-keyring.ts';

const dayMs = 86_400_000;
/** What status says, where nothing else is wrong. */
const warningsOf = (scheduler: Scheduler, spent: string[] = []): string[] => {
  const open = { scheduler, tokenWork: { reports: [] }, nearlySpent: () => spent };
  return describeWarnings({ isBelievable: () => true } as never, { warnings: [] } as never, open as never); // what it asks of each
};

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

test('what fails for many keys, again and again: status names some of them in one line for each reason, and the log has one a day', async () => {
  const { keyring, creation, scheduler, clock, failures } = await MemoryKeyring.make();
  const made: string[] = [];
  for (let count = 0; count < 30; count += 1) made.push((await creation.createKey({ uid: 0 }, { rotationInterval: '7d' })).keyId);
  const findKey = keyring.findKey.bind(keyring);
  let isAway = true;
  keyring.findKey = (keyId) => {
    if (!isAway) return findKey(keyId);
    throw keyId === made[0] ? new RangeError('a key record is shorter than it says') : new AgentError('ERR_HSM_UNAVAILABLE');
  };
  clock.nowMs += 7 * dayMs;
  await scheduler.look(false, never);
  const [first = '', ...others] = made;
  expect(warningsOf(scheduler)).toEqual([
    `What is due waits with ERR_INTERNAL for the key ${first}.`,
    `What is due waits with ERR_HSM_UNAVAILABLE for 29 keys: ${others.slice(0, 20).join(', ')} and 9 more.`,
  ]);
  const told = [first, others[0]];
  expect(failures).toEqual(told);
  for (let flap = 0; flap < 3; flap += 1) {
    isAway = !isAway;
    clock.nowMs += 7 * dayMs;
    await scheduler.look(false, never);
  }
  expect(warningsOf(scheduler)).toEqual([]);
  isAway = true;
  clock.nowMs += 7 * dayMs;
  await scheduler.look(false, never);
  expect(failures).toEqual(told);
  clock.runningMs += dayMs;
  await scheduler.look(false, never);
  expect(failures).toEqual([...told, ...told]);
});

test('keys that are nearly spent: one line, with the names of some', async () => {
  const { scheduler } = await MemoryKeyring.make();
  const keyIds = Array.from({ length: 15_000 }, (_, index) => `key ${index}`);
  expect(warningsOf(scheduler)).toEqual([]);
  expect(warningsOf(scheduler, keyIds.slice(0, 1))).toEqual(['Three quarters of the encryptions of a version are used, of the key key 0.']);
  expect(warningsOf(scheduler, keyIds)).toEqual([
    `Three quarters of the encryptions of a version are used, of 15000 keys: ${keyIds.slice(0, 20).join(', ')} and 14980 more.`,
  ]);
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
