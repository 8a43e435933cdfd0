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

/** The threads of the pool, as far as they can be seen; one may end meanwhile. */
function poolThreads(): string[] {
  return readdirSync('/proc/self/task').filter((thread) => {
    try {
      return readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trim() === poolThreadName;
    } catch {
      return false;
    }
  });
}

/**
 * Lets the event loop go before the threads of the pool (SCHED_BATCH, sched(7)): the kernel leaves them on the core that woke them, where they would take
 * turns with what gives them their work and takes it from them. Against other programs they keep their weight.
 * @returns why it could not be done, as where a sandbox forbids it; undefined when it is. Never rejects: an agent works without.
 */
export async function putEventLoopFirst(): Promise<string | undefined> {
  try {
    await promisify(randomFill)(Buffer.alloc(1)); // starts the threads, all at once
    const results = poolThreads().map((thread) => (setScheduler(Number(thread), schedBatch, priority) === 0 ? 0 : koffi.errno()));
    if (results.length === 0) return `no thread is named ${poolThreadName}`;
    const refused = results.find((errno) => errno !== 0);
    return refused === undefined ? undefined : `sched_setscheduler(SCHED_BATCH) failed with errno ${refused}`;
  } catch (error) {
    return `the threads of the pool cannot be seen: ${error instanceof Error ? error.message : String(error)}`;
  }
}
