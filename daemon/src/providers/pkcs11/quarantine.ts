/**
 * Lets work run side by side, and what is under suspicion alone. Those who wait meanwhile have a turn after each suspect, so that many suspects
 * keep nobody from working.
 */
export class Quarantine {
  /** Of what runs beside other work. */
  #running = 0;
  #isAlone = false;
  /** A suspect is done, and others have not had their turn since. */
  #owesTurn = false;
  /** Calls that failed just now, and come when the token is mended. */
  readonly #expected = new Set<object>();
  readonly #suspects: (() => void)[] = [];
  readonly #others: (() => void)[] = [];

  async beside<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isAlone || this.#hasSuspects) await this.#wait(this.#others);
    else this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      this.#next();
    }
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
    const turn = this.#wait(this.#suspects);
    this.#expected.delete(suspect);
    this.#next();
    await turn;
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

  #wait(queue: (() => void)[]): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    queue.push(resolve);
    return promise;
  }

  /** Whoever may begin is counted at once, and begins. */
  #next(): void {
    if (this.#isAlone) return;
    if (this.#owesTurn || !this.#hasSuspects) this.#letOthersIn();
    if (this.#running > 0) return;
    const suspect = this.#suspects.shift();
    this.#isAlone = suspect !== undefined;
    suspect?.();
  }

  #letOthersIn(): void {
    this.#owesTurn = false;
    const others = this.#others.splice(0);
    this.#running += others.length;
    for (const begin of others) begin();
  }
}
