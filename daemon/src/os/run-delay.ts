import { openSync, readSync } from 'node:fs';

const nsPerMs = 1e6;
const buffer = Buffer.alloc(128);
let file: number | undefined;

/** Kept open: it is read ten times a second. */
function openOnce(): number | undefined {
  try {
    return openSync('/proc/self/schedstat', 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined; // a kernel without CONFIG_SCHED_INFO
    throw error;
  }
}

/** Milliseconds that the main thread has been ready to run and had to wait for a core (proc_pid_schedstat(5), the second number); 0 where the kernel does not count them. */
export function readRunDelay(): number {
  file ??= openOnce();
  if (file === undefined) return 0;
  const length = readSync(file, buffer, 0, buffer.length, 0);
  return Number(buffer.toString('latin1', 0, length).split(' ')[1]) / nsPerMs;
}
