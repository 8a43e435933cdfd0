/** Lets work run side by side, and what is under suspicion alone: what comes meanwhile waits. */
export class Quarantine {
  #running = 0;
  #emptied = Promise.withResolvers<void>();
  /** Resolved when the last suspect that waits is done. */
  #alone: Promise<void> | undefined;

  async beside<T>(work: () => Promise<T>): Promise<T> {
    while (this.#alone) await this.#alone;
    return await this.#count(work);
  }

  /** @param work - is given what lets others in before it has ended. */
  async alone<T>(work: (letIn: () => void) => Promise<T>): Promise<T> {
    const before = this.#alone;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#alone = promise;
    const letIn = (): void => {
      if (this.#alone === promise) this.#alone = undefined;
      resolve();
    };
    await before;
    await this.#drain();
    return await this.#count(() => work(letIn)).finally(letIn);
  }

  async #count<T>(work: () => Promise<T>): Promise<T> {
    this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      if (this.#running === 0) this.#emptied.resolve();
    }
  }

  async #drain(): Promise<void> {
    if (this.#running === 0) return;
    this.#emptied = Promise.withResolvers();
    await this.#emptied.promise;
  }
}
