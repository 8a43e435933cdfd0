import type { Connection } from './connection.ts';
import type { TokenAbilities } from './messages.ts';

/** How often what a token can do is tried out again while that is doubtful. */
const probeIntervalMs = 1000;

/** Tries out again what a token refused when it may have been sick. */
export class AbilityCheck {
  readonly #connection: Connection;
  readonly #probe: () => Promise<{ readonly abilities: TokenAbilities }>;
  #running: Promise<void> | undefined;
  #time = Number.NEGATIVE_INFINITY;

  constructor(connection: Connection, probe: () => Promise<{ readonly abilities: TokenAbilities }>) {
    this.#connection = connection;
    this.#probe = probe;
  }

  /** Does nothing where all is known, or was tried out just now. @throws whatever the probe does. */
  async settle(): Promise<void> {
    if (this.#running) return await this.#running;
    if (!this.#connection.abilities?.isDoubtful || performance.now() - this.#time < probeIntervalMs) return;
    this.#time = performance.now();
    this.#running = this.#run();
    await this.#running;
  }

  async #run(): Promise<void> {
    try {
      this.#connection.abilities = (await this.#probe()).abilities;
    } finally {
      this.#running = undefined;
    }
  }
}
