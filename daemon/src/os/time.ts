import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { libc } from './libc.ts';

const clockGetTime = libc.func('int clock_gettime(int clock, _Out_ uint8_t *time)');
/** <linux/time.h> */
const clockBootTime = 7;
const time = Buffer.alloc(16);

/** CLOCK_BOOTTIME in milliseconds, from its seconds and nanoseconds (clock_gettime(2)). */
function sinceBoot(): number {
  if (clockGetTime(clockBootTime, time) !== 0) throw new Error(`clock_gettime failed with errno ${koffi.errno()}`);
  return Number(time.readBigInt64LE(0)) * 1000 + Number(time.readBigInt64LE(8)) / 1e6;
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
