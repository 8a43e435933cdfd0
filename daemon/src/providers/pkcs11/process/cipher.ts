import { randomBytes } from 'node:crypto';
import { type Calls, isAmbiguous, type KeyRef, suspiciousMs, type TokenAbilities, TokenFailure } from '../messages.ts';
import type { Judge } from './judge.ts';
import type { Keys } from './keys.ts';
import { aesMechanism, ivBytes, oaepMechanism, rawRsa, signMechanism } from './mechanism.ts';
import { addPkcs7, removeOaep, removePkcs7 } from './padding.ts';
import type { Handle, Mechanism } from './pkcs11js.ts';
import type { Session } from './session.ts';
import type { Token } from './token.ts';

const blockBytes = 16;
const tagBytes = 16;
/** Times that a ciphertext fails, between showings that its key is well, before it counts as bad: a token may be sick now and then. */
const verdictRounds = 3;
const invalid = (): TokenFailure => new TokenFailure({ kind: 'invalid' });

type Ciphertext = Calls['decrypt']['takes'];
/** Opens a ciphertext in a session. @throws TokenFailure */
type Attempt = (mechanism: Mechanism, ciphertext: Uint8Array) => Promise<Uint8Array>;

const isFault = (error: unknown, ...rvs: string[]): boolean =>
  error instanceof TokenFailure && error.failure.kind === 'fault' && rvs.includes(error.failure.rv);

/** Encrypts, decrypts and signs with keys of the token. */
export class TokenCipher {
  readonly #token: Token;
  readonly #keys: Keys;
  readonly #judge: Judge;
  readonly #abilities: TokenAbilities;

  constructor({ token, keys, judge, abilities }: { token: Token; keys: Keys; judge: Judge; abilities: TokenAbilities }) {
    this.#token = token;
    this.#keys = keys;
    this.#judge = judge;
    this.#abilities = abilities;
  }

  async encrypt({ key, algorithm, plaintext, aad = Buffer.alloc(0), iv, paddingMode }: Calls['encrypt']['takes']): Promise<Calls['encrypt']['gives']> {
    const chosen = iv ?? randomBytes(ivBytes(algorithm));
    const padded = algorithm === 'AES_GCM' || paddingMode === 'NO_PADDING' ? plaintext : addPkcs7(plaintext);
    const ciphertext = await this.#withKey(key, (session, handle) => session.encrypt(aesMechanism(algorithm, chosen, aad), handle, padded));
    await this.#keys.confirm(key); // nothing else would show that it is another's key that encrypted
    return { ciphertext, ...(chosen.length > 0 ? { iv: chosen } : {}) };
  }

  /** @throws TokenFailure of kind `invalid` for what does not open; `doubtful` where that may as well be a fault, which `judge` tells apart. */
  async decrypt(input: Ciphertext): Promise<{ plaintext: Uint8Array }> {
    const attempt: Attempt = (mechanism, ciphertext) => this.#withKey(input.key, (session, handle) => session.decrypt(mechanism, handle, ciphertext));
    try {
      return await this.#open(input, attempt);
    } catch (error) {
      if (error instanceof TokenFailure && isAmbiguous(error.failure)) throw new TokenFailure({ kind: 'doubtful' });
      throw error;
    }
  }

  /**
   * Decrypts what was doubtful. It counts as a bad ciphertext only when it fails again and again on fresh sessions, its key is shown to be well
   * before and after each time, and nothing else was sick.
   * @throws TokenFailure as decrypt; `doubtful` when something was sick so lately that this may be of it.
   */
  async judge(input: Ciphertext): Promise<{ plaintext: Uint8Array }> {
    const started = performance.now();
    const { key, algorithm } = input;
    for (let round = 0; round < verdictRounds; round += 1) {
      await this.#judge.show(key, algorithm);
      const opened = await this.#open(input, (mechanism, ciphertext) =>
        this.#withKey(key, (session, handle) => session.decrypt(mechanism, handle, ciphertext), true),
      ).catch((error: unknown) => {
        if (error instanceof TokenFailure && isAmbiguous(error.failure)) return undefined;
        throw error;
      });
      if (!opened) continue;
      this.#token.noteFault(); // what opens now did not before
      return opened;
    }
    await this.#judge.show(key, algorithm);
    if (this.#token.lastFaultTime > started - suspiciousMs) throw new TokenFailure({ kind: 'doubtful' });
    throw invalid();
  }

  /** @returns r ‖ s for EC. */
  async sign({ key, algorithm, digest }: Calls['sign']['takes']): Promise<{ signature: Uint8Array }> {
    const { mechanism, input } = signMechanism(algorithm, digest);
    return { signature: await this.#withKey(key, (session, handle) => session.sign(mechanism, handle, input)) };
  }

  /** What does not open is a bad ciphertext only if the key is still the one that was made. */
  async #open(input: Ciphertext, attempt: Attempt): Promise<{ plaintext: Uint8Array }> {
    const { key, algorithm } = input;
    try {
      const plaintext = algorithm.startsWith('RSAES_') ? await this.#openOaep(input, attempt) : await this.#openAes(input, attempt);
      if (algorithm === 'AES_CBC' || algorithm === 'AES_ECB') await this.#keys.confirm(key); // they open with any key
      return { plaintext };
    } catch (error) {
      if (error instanceof TokenFailure && error.failure.kind === 'invalid') await this.#keys.confirm(key);
      throw error;
    }
  }

  async #openAes({ algorithm, ciphertext, aad = Buffer.alloc(0), iv = Buffer.alloc(0), paddingMode }: Ciphertext, attempt: Attempt): Promise<Uint8Array> {
    const mechanism = aesMechanism(algorithm, iv, aad);
    if (algorithm === 'AES_GCM') {
      if (ciphertext.length < tagBytes) throw invalid();
      return await attempt(mechanism, ciphertext);
    }
    if (ciphertext.length === 0 || ciphertext.length % blockBytes !== 0) throw invalid();
    const padded = await attempt(mechanism, ciphertext); // no padding, so it always opens
    const plaintext = paddingMode === 'NO_PADDING' ? padded : removePkcs7(padded);
    if (!plaintext) throw invalid();
    return plaintext;
  }

  async #openOaep({ key, algorithm, ciphertext }: Ciphertext, attempt: Attempt): Promise<Uint8Array> {
    const modulusBytes = Number(key.keySpec.slice('RSA_'.length)) / 8;
    if (ciphertext.length !== modulusBytes) throw invalid();
    if (this.#abilities.oaep[algorithm] === 'token') return await attempt(oaepMechanism(algorithm), ciphertext);
    const message = removeOaep(algorithm, await attempt(rawRsa, ciphertext)); // a number above the modulus does not open
    if (!message) throw invalid();
    return message;
  }

  async #withKey<T>(key: KeyRef, work: (session: Session, handle: Handle) => Promise<T>, fresh = false): Promise<T> {
    const handle = await this.#keys.find(key);
    try {
      return await this.#token.use((session) => work(session, handle), fresh);
    } catch (error) {
      if (isFault(error, 'CKR_OBJECT_HANDLE_INVALID', 'CKR_KEY_HANDLE_INVALID')) this.#keys.forget(key.keyVersionId);
      throw error;
    }
  }
}
