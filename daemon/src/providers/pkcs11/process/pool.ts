import { TokenFailure } from '../messages.ts';
import { CKR_SESSION_COUNT, nameOfRv } from './rv.ts';
import type { Session } from './session.ts';

const isFull = (error: unknown): boolean => error instanceof TokenFailure && error.failure.kind === 'fault' && error.failure.rv === nameOfRv(CKR_SESSION_COUNT);

/** Sessions of a token, each lent to one operation at a time. There are never more than may be, and fewer where the token has not so many. */
export class SessionPool {
  readonly #open: () => Session;
  readonly #size: number;
  readonly #idle: Session[] = [];
  readonly #waiting: (() => void)[] = [];
  #out = 0;

  /** @param size - most sessions at a time. @param open - throws TokenFailure. */
  constructor(size: number, open: () => Session) {
    this.#size = size;
    this.#open = open;
  }

  /**
   * Lends a session, alone, for a whole operation. Work must not ask for a second one meanwhile.
   * @param fresh - one that nobody used before.
   */
  async use<T>(work: (session: Session) => Promise<T> | T, fresh = false): Promise<T> {
    const session = await this.#take(fresh);
    try {
      return await work(session);
    } finally {
      this.#out -= 1;
      if (session.isPoisoned) session.close();
      else this.#idle.push(session);
      this.#waiting.shift()?.();
    }
  }

  /** Sessions that are open. */
  get count(): number {
    return this.#out + this.#idle.length;
  }

  /** Closes what nobody uses. */
  clear(): void {
    for (const session of this.#idle.splice(0)) session.close();
  }

  /** Forgets sessions that C_Finalize has ended. */
  forget(): void {
    this.#idle.length = 0;
  }

  async #take(fresh: boolean): Promise<Session> {
    for (;;) {
      const session = this.#out < this.#size ? this.#takeOrWake(fresh) : undefined;
      if (session) {
        this.#out += 1;
        return session;
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Who has no use for the place leaves it to the next one. */
  #takeOrWake(fresh: boolean): Session | undefined {
    try {
      return this.#takeNow(fresh);
    } catch (error) {
      this.#waiting.shift()?.();
      throw error;
    }
  }

  #takeNow(fresh: boolean): Session | undefined {
    const idle = this.#idle.pop();
    if (idle && !fresh) return idle;
    idle?.close(); // the fresh one takes its place
    try {
      return this.#open();
    } catch (error) {
      if (!isFull(error) || this.#out + this.#idle.length === 0) throw error;
      return this.#idle.length > 0 ? this.#takeNow(fresh) : undefined; // one more place, or a wait for who has the last
    }
  }
}
