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

/** How libuv names the threads of its pool. */
const poolThreadName = 'libuv-worker';

function poolThreads(): number[] {
  const threads = readdirSync('/proc/self/task');
  return threads.filter((thread) => readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trim() === poolThreadName).map(Number);
}

/**
 * Lets the event loop go before the threads of the pool (SCHED_BATCH, sched(7)): the kernel leaves them on the core that woke them, where they would take
 * turns with what gives them their work and takes it from them. Against other programs they keep their weight.
 * @throws Error with the errno where a sandbox forbids it.
 */
export async function putEventLoopFirst(): Promise<void> {
  await promisify(randomFill)(Buffer.alloc(1)); // starts the threads, all at once
  for (const thread of poolThreads())
    if (setScheduler(thread, schedBatch, priority) !== 0) throw new Error(`sched_setscheduler(SCHED_BATCH) failed with errno ${koffi.errno()}`);
}
