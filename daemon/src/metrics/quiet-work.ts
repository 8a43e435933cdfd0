/** Milliseconds without an answer after which nobody is taken to wait. */
const quietMs = 1000;

/** Work that nobody waits for and that holds up everybody: it is done once, when nobody asks anything; in an agent that is never quiet, when somebody first wants what it makes. Just after a start all those wait who came during it. */
export class QuietWork {
  readonly #work: () => void;
  readonly #isAsked: () => boolean;
  #answers = 0;
  #seen = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param isAsked - whether requests run: who waits for a long one waits too. */
  constructor(work: () => void, isAsked: () => boolean) {
    this.#work = work;
    this.#isAsked = isAsked;
  }

  /** From now on a quiet second is one. */
  start(): void {
    this.#timer = setInterval(() => this.#look(), quietMs).unref();
  }

  /** Without effect once the work is done. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Answers so far. */
  get answers(): number {
    return this.#answers;
  }

  noteAnswer(): void {
    this.#answers += 1;
  }

  #look(): void {
    const isQuiet = this.#answers === this.#seen && !this.#isAsked();
    this.#seen = this.#answers;
    if (!isQuiet) return;
    this.stop();
    this.#work();
  }
}
