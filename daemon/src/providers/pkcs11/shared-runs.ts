interface Entry<T> {
  readonly running: Promise<T>;
  next?: Promise<T>;
}

/** Runs work at most once at a time for an id; all that ask meanwhile share the run that begins after the current one. */
export class SharedRuns<T> {
  readonly #entries = new Map<string, Entry<T>>();

  /** @returns the outcome of a run that begins after this call. */
  async run(id: string, work: () => Promise<T>): Promise<T> {
    const current = this.#entries.get(id);
    if (!current) return await this.#start(id, work);
    const next = (): Promise<T> => this.#start(id, work);
    current.next ??= current.running.then(next, next);
    return await current.next;
  }

  #start(id: string, work: () => Promise<T>): Promise<T> {
    const entry: Entry<T> = { running: work() };
    this.#entries.set(id, entry);
    const done = (): void => {
      if (this.#entries.get(id) === entry && !entry.next) this.#entries.delete(id);
    };
    entry.running.then(done, done); // whoever asked hears how it ended
    return entry.running;
  }
}
