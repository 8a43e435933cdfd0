/** Work that begins side by side: what runs, and what waits. Whoever may begin is counted at once. */
class Lane {
  running = 0;
  #waiting: (() => void)[] = [];

  wait(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    return promise;
  }

  letIn(): void {
    this.running += this.#waiting.length;
    for (const begin of this.#waiting.splice(0)) begin();
  }
}

/**
 * Lets work run side by side, and what is under suspicion alone. Those who wait meanwhile have a turn after each suspect, so that many suspects keep
 * nobody from working. A change, which may take minutes, does not begin while there is a suspect; for one that runs, nobody but a suspect waits.
 */
export class Quarantine {
  readonly #others = new Lane();
  readonly #changes = new Lane();
  /** Calls that failed just now, and come when the token is mended. */
  readonly #expected = new Set<object>();
  readonly #suspects: (() => void)[] = [];
  #isAlone = false;
  /** A suspect is done, and others have not had their turn since. */
  #owesTurn = false;

  async beside<T>(work: () => Promise<T>): Promise<T> {
    return await this.#run(this.#others, this.#isAlone || (this.#hasSuspects && this.#changes.running === 0), work);
  }

  /** Like beside, for what makes or destroys. */
  async change<T>(work: () => Promise<T>): Promise<T> {
    return await this.#run(this.#changes, this.#isAlone || this.#hasSuspects, work);
  }

  /** Others let it go first from now on, until it runs alone or is forgotten. */
  expect(suspect: object): void {
    this.#expected.add(suspect);
  }

  forget(suspect: object): void {
    if (this.#expected.delete(suspect)) this.#next();
  }

  /** @param work - is given what lets others in before it has ended. */
  async alone<T>(suspect: object, work: (letIn: () => void) => Promise<T>): Promise<T> {
    const turn = Promise.withResolvers<void>();
    this.#suspects.push(turn.resolve);
    this.#expected.delete(suspect);
    this.#next();
    await turn.promise;
    let isAlone = true;
    const letIn = (): void => {
      if (!isAlone) return;
      isAlone = false;
      this.#isAlone = false;
      this.#owesTurn = true;
      this.#next();
    };
    return await work(letIn).finally(letIn);
  }

  get #hasSuspects(): boolean {
    return this.#suspects.length + this.#expected.size > 0;
  }

  async #run<T>(lane: Lane, mustWait: boolean, work: () => Promise<T>): Promise<T> {
    if (mustWait) await lane.wait();
    else lane.running += 1;
    try {
      return await work();
    } finally {
      lane.running -= 1;
      this.#next();
    }
  }

  #next(): void {
    if (this.#isAlone) return;
    if (this.#owesTurn || !this.#hasSuspects || this.#changes.running > 0) this.#others.letIn();
    this.#owesTurn = false;
    if (!this.#hasSuspects) this.#changes.letIn();
    if (this.#others.running + this.#changes.running > 0) return;
    const suspect = this.#suspects.shift();
    this.#isAlone = suspect !== undefined;
    suspect?.();
  }
}
