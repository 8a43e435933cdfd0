import { AnswerCounts, type AnsweredRequest } from './answers.ts';
import type { Metrics, MetricsSnapshot } from './registry.ts';

/** Figures whose library is loaded when somebody wants them or nobody waits: it takes as long as half of the rest of a start. What is answered is counted without it. */
export class LateMetrics {
  readonly #version: string;
  readonly #read: () => MetricsSnapshot;
  readonly #answers = new AnswerCounts();
  #loading: Promise<Metrics> | undefined;

  /** @param read - asked each time that somebody wants the text. */
  constructor(version: string, read: () => MetricsSnapshot) {
    this.#version = version;
    this.#read = read;
  }

  count(answered: AnsweredRequest): void {
    this.#answers.count(answered);
  }

  async expose(): Promise<{ contentType: string; text: string }> {
    return await (await this.load()).expose();
  }

  /** Loads them, unless they are or are being. */
  load(): Promise<Metrics> {
    this.#loading ??= this.#load().catch((error: unknown) => {
      this.#loading = undefined; // the next who asks tries again
      throw error;
    });
    return this.#loading;
  }

  async #load(): Promise<Metrics> {
    const { Metrics } = await import('./registry.ts');
    return new Metrics(this.#version, this.#answers, this.#read);
  }
}
