import { randomFill } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import koffi from 'koffi';
import { libc } from './libc.ts';

const setScheduler = libc.func('int sched_setscheduler(int thread, int policy, const int *priority)');
/** <linux/sched.h> */
const schedBatch = 3;
/** The only static priority of SCHED_BATCH (sched(7)). */
const priority = new Int32Array([0]);
/** <errno.h>: the thread has ended. */
const eSrch = 3;

/** How libuv names the threads of its pool. */
const poolThreadName = 'libuv-worker';

function nameOf(thread: string): string | undefined {
  try {
    return readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ESRCH') return undefined; // it has ended
    throw error;
  }
}

/**
 * Lets the event loop go before the threads of the pool (SCHED_BATCH, sched(7)): the kernel leaves them on the core that woke them, where they would take
 * turns with what gives them their work and takes it from them. Against other programs they keep their weight.
 * @returns why it could not be done, as where a sandbox forbids it; undefined when it is.
 */
export async function putEventLoopFirst(): Promise<string | undefined> {
  await promisify(randomFill)(Buffer.alloc(1)); // starts the threads, all at once
  const threads = readdirSync('/proc/self/task').filter((thread) => nameOf(thread) === poolThreadName);
  if (threads.length === 0) return `no thread is named ${poolThreadName}`;
  const refused = threads.flatMap((thread) => (setScheduler(Number(thread), schedBatch, priority) === 0 ? [] : [koffi.errno()]));
  const [errno] = refused.filter((one) => one !== eSrch);
  return errno === undefined ? undefined : `sched_setscheduler(SCHED_BATCH) failed with errno ${errno}`;
}
