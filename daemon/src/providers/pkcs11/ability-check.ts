import { type TokenAbilities, TokenFailure } from './messages.ts';

/** Waits before what is doubtful is tried out again, as long as that changes nothing. After the last one it is believed. */
const waitsMs = [0, 1000, 10_000, 60_000] as const;

/** What is known of a token. */
interface Known {
  abilities: TokenAbilities | undefined;
}

/** Tries out again what a token refused when it may have been sick. */
export class AbilityCheck {
  readonly #known: Known;
  readonly #probe: (known: TokenAbilities) => Promise<TokenAbilities>;
  readonly #now: () => number;
  #running: Promise<void> | undefined;
  #time = Number.NEGATIVE_INFINITY;
  /** Probes in a row that changed nothing. */
  #agreed = 0;

  /** @param now - a clock in milliseconds, of any beginning. */
  constructor(known: Known, probe: (known: TokenAbilities) => Promise<TokenAbilities>, now: () => number = () => performance.now()) {
    this.#known = known;
    this.#probe = probe;
    this.#now = now;
  }

  /** Somebody thinks that it is well now. */
  doubt(): void {
    this.#agreed = 0;
  }

  /** Does nothing where all is known, or was tried out just now, or often enough: making pairs for it takes seconds on a real token. @throws whatever the probe does. */
  async settle(): Promise<void> {
    if (this.#running) return await this.#running;
    const { abilities } = this.#known;
    const waitMs = waitsMs[this.#agreed];
    if (!abilities || abilities.doubtful.length === 0 || waitMs === undefined || this.#now() - this.#time < waitMs) return;
    this.#running = this.#run(abilities);
    await this.#running;
  }

  async #run(before: TokenAbilities): Promise<void> {
    try {
      const found = await this.#probe(before);
      this.#agreed = found.doubtful.join() === before.doubtful.join() ? this.#agreed + 1 : 0;
      this.#known.abilities = found;
    } catch (error) {
      if (error instanceof TokenFailure && error.failure.kind === 'failed') this.#agreed += 1; // what costs helpers is no more welcome than what changes nothing
      throw error;
    } finally {
      this.#time = this.#now();
      this.#running = undefined;
    }
  }
}
