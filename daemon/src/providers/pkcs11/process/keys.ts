import { type KeyRef, TokenFailure } from '../messages.ts';
import { SharedRuns } from '../shared-runs.ts';
import { CKA_EC_POINT, CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKO_PUBLIC_KEY } from './cryptoki.ts';
import { ecPublicKey, rsaPublicKey } from './mechanism.ts';
import type { Handle } from './pkcs11js.ts';
import type { Prover } from './proof.ts';
import type { Session } from './session.ts';
import { classOf, findById } from './template.ts';
import type { Token } from './token.ts';

const doubts = ['missing', 'ambiguous', 'unproven'] as const;
type Doubt = (typeof doubts)[number];

const isDoubt = (outcome: unknown): outcome is Doubt => doubts.some((doubt) => doubt === outcome);

/**
 * Finds keys by CKA_ID and lets nobody use one that is not proven to be the one that was made.
 * A handle that was proven is kept until the token is logged in anew or says that it is no handle.
 */
export class Keys {
  readonly #token: Token;
  readonly #prover: Prover;
  readonly #check: () => Promise<void>;
  readonly #proven = new Map<string, Handle>();
  readonly #proving = new Map<string, Promise<Handle>>();
  readonly #confirmations = new SharedRuns<void>();

  /** @param check - throws when the token as a whole is sick: then a key that is not shown says nothing. */
  constructor(token: Token, prover: Prover, check: () => Promise<void>) {
    this.#token = token;
    this.#prover = prover;
    this.#check = check;
  }

  /** Nothing that was known holds any more. */
  forgetAll(): void {
    this.#proven.clear();
    this.#proving.clear();
  }

  forget(keyVersionId: string): void {
    this.#proven.delete(keyVersionId);
  }

  /** The handle of a key, proven once. @throws TokenFailure of kind `key`. */
  async find(key: KeyRef): Promise<Handle> {
    const known = this.#proven.get(key.keyVersionId);
    if (known) return known;
    const running = this.#proving.get(key.keyVersionId) ?? this.#prove(key);
    this.#proving.set(key.keyVersionId, running);
    try {
      return await running;
    } finally {
      if (this.#proving.get(key.keyVersionId) === running) this.#proving.delete(key.keyVersionId);
    }
  }

  /**
   * Shows, after this call, that the handle that is used is still of the key that was made: some modules keep a handle when another object takes
   * its place. Whoever asks meanwhile shares it. @throws TokenFailure of kind `key`.
   */
  async confirm(key: KeyRef): Promise<void> {
    await this.#confirmations.run(key.keyVersionId, () => this.#confirm(key));
  }

  async #confirm(key: KeyRef): Promise<void> {
    const { keyVersionId } = key;
    const handle = await this.find(key);
    try {
      if (await this.#token.use((session) => this.#prover.holds(session, handle, key))) return;
    } catch (error) {
      this.forget(keyVersionId);
      throw error;
    }
    this.forget(keyVersionId);
    await this.#check();
    throw new TokenFailure({ kind: 'key', why: 'unproven' });
  }

  /** Proves a key anew, on a session that nobody used before. @throws TokenFailure */
  async prove(key: KeyRef): Promise<void> {
    await this.#provenOn((session) => this.#proveIn(session, key));
  }

  /**
   * Destroys a key, and its public half; what is not proven to be ours is left. That there is nothing is believed of a token that is well,
   * and that shows nothing a second time. @returns how many objects went.
   */
  async destroy(key: KeyRef): Promise<number> {
    for (const isWell of [false, true]) {
      this.forget(key.keyVersionId);
      const destroyed = await this.#provenOn((session) => this.#destroyIn(session, key, isWell)).finally(() => this.forget(key.keyVersionId));
      if (destroyed !== undefined) return destroyed;
      await this.#check();
    }
    return 0;
  }

  async #destroyIn(session: Session, key: KeyRef, isWell: boolean): Promise<number | undefined | Doubt> {
    const found = session.find(findById(key.keyVersionId, classOf(key.keySpec)), 2);
    if (found.length === 0 && !isWell) return undefined;
    if (found.length > 0) {
      const proven = await this.#proveIn(session, key);
      if (typeof proven === 'string') return proven;
      session.destroy(proven);
    }
    const halves = session.find(findById(key.keyVersionId, CKO_PUBLIC_KEY), 2).filter((half) => isHalf(session, half, key));
    for (const half of halves) session.destroy(half);
    return (found.length > 0 ? 1 : 0) + halves.length;
  }

  async #prove(key: KeyRef): Promise<Handle> {
    const handle = await this.#provenOn((session) => this.#proveIn(session, key));
    this.#proven.set(key.keyVersionId, handle);
    return handle;
  }

  /** Runs work on a fresh session; what was found wrong with a key counts only where the token as a whole is well. */
  async #provenOn<T>(work: (session: Session) => Promise<T | Doubt>): Promise<T> {
    const outcome = await this.#token.use(work, true);
    if (!isDoubt(outcome)) return outcome;
    await this.#check(); // with the session given back: a token may have few
    throw new TokenFailure({ kind: 'key', why: outcome });
  }

  async #proveIn(session: Session, key: KeyRef): Promise<Handle | Doubt> {
    const [handle, other] = session.find(findById(key.keyVersionId, classOf(key.keySpec)), 2);
    if (!handle) return 'missing';
    if (other) return 'ambiguous';
    return (await this.#prover.holds(session, handle, key)) ? handle : 'unproven';
  }
}

function isHalf(session: Session, half: Handle, { keySpec, publicKey }: KeyRef): boolean {
  return publicKey !== undefined && Buffer.compare(readPublicKey(session, half, keySpec), publicKey) === 0;
}

/** SPKI DER of a public key object. */
export function readPublicKey(session: Session, object: Handle, keySpec: KeyRef['keySpec']): Uint8Array {
  if (keySpec.startsWith('EC_')) return ecPublicKey(keySpec, session.attributes(object, CKA_EC_POINT)[0] ?? Buffer.alloc(0));
  const [modulus = Buffer.alloc(0), exponent = Buffer.alloc(0)] = session.attributes(object, CKA_MODULUS, CKA_PUBLIC_EXPONENT);
  return rsaPublicKey(modulus, exponent);
}
