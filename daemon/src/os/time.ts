import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { libc } from './libc.ts';

const clockGetTime = libc.func('int clock_gettime(int clock, _Out_ uint8_t *time)');
/** <linux/time.h> */
const clockBootTime = 7;
/** struct timespec of a little-endian machine of 64 bits: words of seconds and nanoseconds, the lower one first. A BigInt would cost as much as the call. */
const time = new Uint32Array(4);
const timeBytes = new Uint8Array(time.buffer);
const wordSize = 2 ** 32;

/** CLOCK_BOOTTIME in milliseconds, from its seconds and nanoseconds (clock_gettime(2)). */
function sinceBoot(): number {
  if (clockGetTime(clockBootTime, timeBytes) !== 0) throw new Error(`clock_gettime failed with errno ${koffi.errno()}`);
  const [low = 0, high = 0, nanoseconds = 0] = time;
  return (high * wordSize + low) * 1000 + nanoseconds / 1e6;
}

/** Longest time in milliseconds that readings of two clocks may lie apart and still be of one moment. */
const momentMs = 1;

/** CLOCK_BOOTTIME goes on while the machine is suspended, and CLOCK_MONOTONIC, behind performance.now(), does not. Readings between which this process had to wait are made again. */
function slept(): number {
  for (;;) {
    const before = performance.now();
    const boot = sinceBoot();
    const after = performance.now();
    if (after - before < momentMs) return boot - after;
  }
}

/** The clocks of the machine: the wall clock, which can be set, and those of the kernel, which cannot. */
export const machineTime = {
  wall: (): number => Date.now(),
  /** Milliseconds since the start of the machine, suspension included. */
  sinceBoot,
  /** What grows, to a millisecond, by the time that the machine was suspended. */
  slept,
  /** Another one after each start of the machine (random(4)). */
  bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
};
