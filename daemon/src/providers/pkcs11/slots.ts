import { AgentError } from '@kms-agent/protocol';

/** Lets so many work side by side and so many wait, in the order in which they came. */
export class Slots {
  readonly #size: number;
  readonly #maxWaiting: number;
  readonly #waiting: (() => void)[] = [];
  #taken = 0;

  constructor(size: number, maxWaiting: number) {
    this.#size = size;
    this.#maxWaiting = maxWaiting;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** @throws AgentError `ERR_BUSY` when too many wait. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#taken >= this.#size) await this.#wait();
    else this.#taken += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next)
        next(); // takes over the slot
      else this.#taken -= 1;
    }
  }

  #wait(): Promise<void> {
    if (this.#waiting.length >= this.#maxWaiting) throw new AgentError('ERR_BUSY', { retryAfterMs: 1000 });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    return promise;
  }
}
