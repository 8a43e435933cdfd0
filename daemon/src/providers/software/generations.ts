import { AgentError } from '@kms-agent/protocol';

/** How many RSA pairs are made at a time. */
export interface GenerationLimits {
  /** Fewer than the four threads of the pool: signatures need the others. */
  readonly maxGenerations: number;
  /** Generations that may wait for a turn. */
  readonly maxQueuedGenerations: number;
}

/** Milliseconds after which somebody who was refused may ask again. */
const retryAfterMs = 1000;

/** Takes the making of RSA pairs in turn: each occupies a thread of the pool for up to seconds, and a signature must not wait behind many. */
export class Generations {
  readonly #limits: GenerationLimits;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(limits: GenerationLimits) {
    this.#limits = limits;
  }

  /** Runs `make` when it is its turn, first come, first served. @throws AgentError `ERR_BUSY` when too many wait. */
  async run<T>(make: () => Promise<T>): Promise<T> {
    if (this.#running < this.#limits.maxGenerations) this.#running += 1;
    else await this.#wait();
    try {
      return await make();
    } finally {
      const next = this.#waiting.shift();
      if (next)
        next(); // it takes over this place
      else this.#running -= 1;
    }
  }

  async #wait(): Promise<void> {
    if (this.#waiting.length >= this.#limits.maxQueuedGenerations) throw new AgentError('ERR_BUSY', { retryAfterMs });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    await promise;
  }
}
