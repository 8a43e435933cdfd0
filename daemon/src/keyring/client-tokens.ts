import { AgentError } from '@kms-agent/protocol';
import type { Clock } from './clock.ts';
import type { Keyring } from './keyring.ts';
import type { ClientTokenEntry } from './records.ts';

/** How long a token answers its first result. */
const lifetimeMs = 24 * 3_600_000;

/** Expired tokens that go in one commit: a day of very many creations ends in many small ones. */
const sweepBatch = 100;

/** What a creation made. */
export interface Made {
  readonly keyId: string;
  readonly keyVersionId: string;
}

/** The part of a commit that remembers a token, in the same transaction as what it stands for. */
export type RememberToken = (made: Made) => { clientTokens?: ClientTokenEntry[]; expiredTokens?: string[] };

/** Idempotent creation: the same token from the same uid within 24 hours answers the first result. */
export class ClientTokens {
  readonly #keyring: Keyring;
  readonly #clock: Clock;
  readonly #running = new Map<string, { method: string; made: Promise<Made> }>();

  constructor(keyring: Keyring, clock: Clock) {
    this.#keyring = keyring;
    this.#clock = clock;
  }

  /**
   * Runs `create` unless the token stands for something already, or is running now.
   * @param create - makes the thing and commits it together with what it is handed.
   * @throws AgentError `ERR_ALREADY_EXISTS` when the token was used for another creation.
   */
  async once(uid: number, method: string, token: string | undefined, create: (remember: RememberToken) => Promise<Made>): Promise<Made> {
    if (token === undefined) return await create(() => ({}));
    const id = `${uid}:${token}`;
    const earlier = this.#running.get(id) ?? this.#remembered(id);
    if (earlier) {
      if (earlier.method === method) return await earlier.made;
      throw new AgentError('ERR_ALREADY_EXISTS', { hint: 'The clientToken was used for another creation; use a new one.' });
    }
    const made = create((result) => this.#remember({ id, method, time: this.#clock(), ...result }));
    this.#running.set(id, { method, made });
    try {
      return await made;
    } finally {
      this.#running.delete(id);
    }
  }

  #remembered(id: string): { method: string; made: Promise<Made> } | undefined {
    const entry = this.#keyring.clientTokens.get(id);
    if (!entry || this.#clock() - entry.time > lifetimeMs) return undefined;
    return { method: entry.method, made: Promise.resolve(entry) };
  }

  #remember(entry: ClientTokenEntry): { clientTokens: ClientTokenEntry[]; expiredTokens: string[] } {
    const expiredTokens = this.#expired().filter((id) => id !== entry.id);
    return { clientTokens: [entry], expiredTokens };
  }

  /** Drops some of those whose day is over. */
  sweep(): void {
    const expiredTokens = this.#expired();
    if (expiredTokens.length > 0) this.#keyring.commit({ expiredTokens });
  }

  #expired(): string[] {
    return this.#keyring.clientTokens.before(this.#clock() - lifetimeMs, sweepBatch);
  }
}
