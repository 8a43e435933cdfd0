import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';

/** Milliseconds between two looks at who still waits. */
const lookMs = 25;
/** Looks in a row that must find nobody. */
const quietLooks = 2;
/** Looks after which an agent stops although callers go on asking: a quarter of a second, more on a machine that is slow just then. */
const mostLooks = 10;

/** What shows that somebody asks. */
export interface Traffic {
  readonly connections: number;
  readonly inFlight: number;
  /** Answers so far. */
  readonly answers: number;
}

/**
 * Resolves when nobody asks any more, or soon. Callers who came while an agent started wait already: where restarts follow each other at once,
 * each agent that is stopped would else refuse them anew.
 */
export async function lastCall(traffic: () => Traffic): Promise<void> {
  let before = traffic();
  for (let [looks, quiet] = [0, 0]; looks < mostLooks && quiet < quietLooks; looks += 1) {
    await delay(lookMs);
    await nextTurn(); // a timer that is late comes before what there is to read
    const now = traffic();
    const isQuiet = now.inFlight === 0 && now.answers === before.answers && now.connections === before.connections;
    quiet = isQuiet ? quiet + 1 : 0;
    before = now;
  }
}
