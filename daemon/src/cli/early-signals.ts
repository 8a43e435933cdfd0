import { constants } from 'node:os';

/*
 * Loaded before everything else of the agent: until a process has said what it does with a signal, the signal ends it, and an agent that is started
 * in its place opens the vault by its credential. Of SIGTERM and SIGINT that is what is wanted: nobody has been answered yet. But the kernel
 * ends process 1 of a container by no signal that it does not handle, and so these are handled as well.
 */

/** Signals that must not end an agent that is still being started. */
type EarlySignal = 'SIGUSR2' | 'SIGHUP';

const seen = new Set<EarlySignal>();
const listeners = new Map<EarlySignal, () => void>();

/** Ends a process as a signal does, for who waits for it; process 1 outlives its own signal, and ends by itself. */
const endBy = (signal: 'SIGTERM' | 'SIGINT') => (): void => {
  process.kill(process.pid, signal); // which nobody hears any more
  process.exit(128 + constants.signals[signal]);
};

const ends = { SIGTERM: endBy('SIGTERM'), SIGINT: endBy('SIGINT') } as const;

/** Leaves SIGTERM and SIGINT to who hears them by now: one that nobody heard for a moment would be lost to process 1. */
export function releaseSignals(): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.off(signal, ends[signal]);
}

/** From now on SIGTERM and SIGINT end it, whichever process it is; the others end nothing, and wait for who hears them. */
export function keepSignals(): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, ends[signal]);
  for (const signal of ['SIGUSR2', 'SIGHUP'] as const)
    process.on(signal, () => {
      seen.add(signal);
      listeners.get(signal)?.();
    });
}

/** From now on `listener` alone hears of a signal; at once if it has come already. */
export function hearSignal(signal: EarlySignal, listener: () => void): void {
  listeners.set(signal, listener);
  if (seen.has(signal)) listener();
}
