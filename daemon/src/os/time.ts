import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';

/** The clocks of the machine: the wall clock, which can be set, and CLOCK_BOOTTIME, which cannot (clock_gettime(2)). */
export const machineTime = {
  wall: (): number => Date.now(),
  /** Milliseconds since the start of the machine, sleep included; from /proc/uptime, to 10 ms. */
  sinceBoot: (): number => uptime() * 1000,
  /** Another one after each start of the machine (random(4)). */
  bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
};
