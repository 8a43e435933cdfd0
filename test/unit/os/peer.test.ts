import { expect, test } from 'vitest';
import { livingByStartTime, livingPeer } from '../../../daemon/src/os/peer.ts';

const pid = 4711;

/** A pidfd whose process lives as long as it is said to, look by look; what was closed is told. */
function sourceOf(...lives: boolean[]): { source: Parameters<typeof livingPeer>[2] & object; closed: number[] } {
  const closed: number[] = [];
  return { source: { openPidFd: () => 9, isRunning: () => lives.shift() ?? false, close: (pidFd) => closed.push(pidFd) }, closed };
}

test.each([
  ['before and after', [true, true], 'read', 1],
  ['before, and gone after: what was read may be of another process with its number', [true, false], 'unknown', 1],
  ['no more', [false], 'unknown', 0],
] as const)('livingPeer: alive %s', (_when, lives, answer, reads) => {
  const { source, closed } = sourceOf(...lives);
  let done = 0;
  const read = (asked: number): string => {
    expect(asked).toBe(pid);
    done += 1;
    return 'read';
  };
  expect(livingPeer(() => 3, pid, source).whileAlive(read)).toBe(answer);
  expect([done, closed]).toEqual([reads, [9]]);
});

test('livingPeer: a read that fails closes the pidfd, a closed connection opens none', () => {
  const { source, closed } = sourceOf(true, true);
  const fail = (): never => {
    throw new Error('the read failed');
  };
  expect(() => livingPeer(() => 3, pid, source).whileAlive(fail)).toThrow('the read failed');
  expect(closed).toEqual([9]);
  expect(livingPeer(() => undefined, pid, source).whileAlive(fail)).toBe('unknown');
});

test.each([
  ['the same process', [100, 100], 'read'],
  ['gone after the read', [100, undefined], 'unknown'],
  ['another one with its number after the read', [100, 300], 'unknown'],
  ['another one from the beginning', [300, 300], 'unknown'],
])('livingByStartTime: %s', (_what, ticks, answer) => {
  const left = [...ticks];
  expect(livingByStartTime(pid, 2, () => left.shift()).whileAlive(() => 'read')).toBe(answer);
});
