import { clockToleranceMs } from './clock.ts';
import type { Key } from './key.ts';
import type { LifeClock } from './keyring.ts';

const dayMs = 86_400_000;

/** The longest window there is; an end that lies further ahead was counted by another count. */
const longestWindowMs = 366 * dayMs;

/** A window that begins now: its end on the wall clock, which is shown, and on the count of running time, which decides. */
export function windowOf(days: number, clock: LifeClock): { deletionTime: number; windowEnd: number } {
  return { deletionTime: clock.now() + days * dayMs, windowEnd: clock.runningMs() + days * dayMs };
}

/** Whether the window has passed, by time that has surely gone by; never by the wall clock, which may have been wrong when the window began. */
export function isWindowOver({ windowEnd }: Key, clock: LifeClock): boolean {
  return windowEnd !== undefined && windowEnd <= clock.runningMs();
}

/** Whether the end is counted; it is not in records of before that was done, nor where the count was lost with a damaged vault. */
export function isCounted({ windowEnd }: Key, clock: LifeClock): boolean {
  return windowEnd !== undefined && windowEnd - clock.runningMs() <= longestWindowMs;
}

/** When the window ends, by the wall clock of now: the time that was said at first for as long as it still is right within an hour. */
export function deletionTimeOf(key: Key, clock: LifeClock): number | undefined {
  const { deletionTime, windowEnd } = key;
  if (deletionTime === undefined || windowEnd === undefined || !isCounted(key, clock)) return deletionTime;
  const expected = clock.now() + windowEnd - clock.runningMs();
  return Math.abs(expected - deletionTime) > clockToleranceMs ? expected : deletionTime;
}
