/** Lets work on one key run one after the other. Work on other keys does not wait. */
export class KeyTurns {
  readonly #turns = new Map<string, Promise<unknown>>();

  /** Runs when what was begun before on this key is over, however that ended. Work must not ask for the same key's turn again. */
  async run<T>(keyId: string, work: () => Promise<T>): Promise<T> {
    const result = (this.#turns.get(keyId) ?? Promise.resolve()).then(work);
    const turn = result.catch(() => undefined); // whoever called hears of it; the next in the turn does not care
    this.#turns.set(keyId, turn);
    try {
      return await result;
    } finally {
      if (this.#turns.get(keyId) === turn) this.#turns.delete(keyId);
    }
  }
}
