/*
 * Loaded before everything else of the agent: until a process has said what it does with a signal, the signal ends it, and an agent that is started
 * in its place opens the vault by its credential. Of SIGTERM and SIGINT that is what is wanted: nobody has been answered yet.
 */

/** Signals that must not end an agent that is still being started. */
type EarlySignal = 'SIGUSR2' | 'SIGHUP';

const seen = new Set<EarlySignal>();
const listeners = new Map<EarlySignal, () => void>();

/** From now on these signals end nothing, and wait for who hears them. */
export function keepSignals(): void {
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
