import { setTimeout as delay } from 'node:timers/promises';
import type { Asker } from '../../caller/identity.ts';
import { type Failure, type HelperEnd, TokenFailure } from './messages.ts';
import { busy } from './slots.ts';

type Fault = Extract<Failure, { kind: 'fault' }>;

/** So long it is remembered that calls of a kind have cost helpers. */
const rememberMs = 30_000;
/** So long after such a loss no call of the kind is tried: meanwhile everybody else works. */
const pauseMs = 1000;

/** What a try told those who waited for it; a failure is for those of the same connection: others may ask for something else with the key. */
interface Outcome {
  readonly connection: number | undefined;
  readonly failure?: Failure;
}

interface Mark {
  lossTime: number;
  end: HelperEnd;
  trial: Promise<Outcome> | undefined;
}

/** There is nothing to remember any more: it may run like others. */
export const free = Symbol('free');

/** Remembers kinds of calls that have cost helpers. Of each, one at a time is tried for all that wait, and costs one helper at most. */
export class CostlyCalls {
  readonly #marks = new Map<string, Mark>();
  readonly #patienceMs: number;
  readonly #maxWaiting: number;
  /** Calls that wait for the outcome of another one's try; each holds its message. */
  #waiting = 0;

  /** @param patienceMs - who has waited for others so long is told what they were told. @param maxWaiting - so many may wait. */
  constructor(patienceMs: number, maxWaiting: number) {
    this.#patienceMs = patienceMs;
    this.#maxWaiting = maxWaiting;
  }

  /** A call of the kind has cost a helper more than it may. */
  note(kind: string, end: HelperEnd): void {
    for (const other of this.#marks.keys()) this.#find(other); // what is too old is forgotten, also where nobody asks again
    const mark = this.#marks.get(kind) ?? { trial: undefined };
    this.#marks.set(kind, Object.assign(mark, { lossTime: performance.now(), end }));
  }

  has(kind: string): boolean {
    return this.#find(kind) !== undefined;
  }

  /**
   * Tries for all, or shares what the one that does was told.
   * @param work - is given how the last one lost its helper.
   * @returns `free` when another one went well.
   * @throws TokenFailure of kind `failed` when another one of the same connection cost a helper; AgentError `ERR_BUSY` when too many wait; whatever `work` throws.
   */
  async run<T>(kind: string, asker: Asker | undefined, work: (end: HelperEnd) => Promise<T>): Promise<T | typeof free> {
    const start = performance.now();
    for (let mark = this.#find(kind); mark; mark = this.#find(kind)) {
      if (!mark.trial) return await this.#try(kind, mark, asker, work);
      const { connection, failure } = await this.#outcomeOf(mark.trial);
      if (failure && (connection === asker?.connection || performance.now() - start >= this.#patienceMs)) throw new TokenFailure(failure);
    }
    return free;
  }

  async #outcomeOf(trial: Promise<Outcome>): Promise<Outcome> {
    if (this.#waiting >= this.#maxWaiting) throw busy();
    this.#waiting += 1;
    return await trial.finally(() => {
      this.#waiting -= 1;
    });
  }

  async #try<T>(kind: string, mark: Mark, asker: Asker | undefined, work: (end: HelperEnd) => Promise<T>): Promise<T> {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    mark.trial = promise;
    const { lossTime } = mark;
    let failure: Failure | undefined;
    try {
      await delay(Math.max(0, mark.lossTime + pauseMs - performance.now()), undefined, { ref: false });
      const result = await work(mark.end);
      this.#marks.delete(kind);
      return result;
    } catch (error) {
      const met = error instanceof TokenFailure ? error.failure : undefined;
      if (met && met.kind !== 'fault') this.#marks.delete(kind); // it was answered
      const isNew = mark.lossTime !== lossTime; // else it never ran: what it met is why the token is down
      failure = isNew && met?.kind === 'fault' && isLoss(met) ? { kind: 'failed', rv: met.rv, call: met.call } : undefined;
      throw error;
    } finally {
      mark.trial = undefined;
      resolve({ connection: asker?.connection, ...(failure ? { failure } : {}) });
    }
  }

  #find(kind: string): Mark | undefined {
    const mark = this.#marks.get(kind);
    if (!mark || mark.trial || performance.now() - mark.lossTime < rememberMs) return mark;
    this.#marks.delete(kind);
    return undefined;
  }
}

/** Whether a helper was lost during a call, perhaps because of it. */
export const isLoss = ({ helper }: Fault): boolean => helper === 'died' || helper === 'late';
