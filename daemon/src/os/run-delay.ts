import { openSync, readSync } from 'node:fs';

const nsPerMs = 1e6;

/** Milliseconds that the main thread has been ready to run and had to wait for a core; undefined where that cannot be known. Never throws. */
export type RunDelay = () => number | undefined;

/** Opens what the kernel says of it (proc_pid_schedstat(5), the second number) for good: later there may be no descriptor left. */
export function openRunDelay(path = '/proc/self/schedstat'): RunDelay {
  const buffer = Buffer.alloc(128);
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
  } catch {
    return () => undefined; // a kernel without CONFIG_SCHED_INFO, or a sandbox: who asks does without
  }
  return () => {
    try {
      const length = readSync(file, buffer, 0, buffer.length, 0);
      const waitedNs = Number(/^[1-9]\d* (\d+) /.exec(buffer.toString('latin1', 0, length))?.[1]); // who reads has run: a zero is a kernel that does not count
      return Number.isNaN(waitedNs) ? undefined : waitedNs / nsPerMs;
    } catch {
      return undefined;
    }
  };
}
