import type { AnsweredRequest, Metrics, MetricsSnapshot } from './registry.ts';

/** Answers that are kept until the library is there, about 10 MB. It is loaded long before there are so many; where it cannot be, those beyond are not counted. */
const mostEarly = 100_000;

/** Figures whose library is loaded when somebody wants them or nobody waits: it takes as long as half of the rest of a start. What is counted before is counted then. */
export class LateMetrics {
  readonly #version: string;
  readonly #read: () => MetricsSnapshot;
  readonly #early: AnsweredRequest[] = [];
  #loading: Promise<Metrics> | undefined;
  #metrics: Metrics | undefined;

  /** @param read - asked each time that somebody wants the text. */
  constructor(version: string, read: () => MetricsSnapshot) {
    this.#version = version;
    this.#read = read;
  }

  count(answered: AnsweredRequest): void {
    if (this.#metrics) this.#metrics.count(answered);
    else if (this.#early.length < mostEarly) this.#early.push(answered);
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
    const metrics = new Metrics(this.#version, this.#read);
    for (const answered of this.#early.splice(0)) metrics.count(answered);
    this.#metrics = metrics;
    return metrics;
  }
}
