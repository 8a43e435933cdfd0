import { randomBytes } from 'node:crypto';
import type { EncryptionAlgorithm } from '@kms-agent/protocol';
import { type Calls, isAmbiguous, type KeyRef, type TokenAbilities, TokenFailure } from '../messages.ts';
import type { Keys } from './keys.ts';
import { aesMechanism, ivBytes, oaepMechanism, rawRsa, signMechanism } from './mechanism.ts';
import { addPkcs7, removeOaep, removePkcs7 } from './padding.ts';
import type { Handle, Mechanism } from './pkcs11js.ts';
import type { Session } from './session.ts';
import type { Token } from './token.ts';

const blockBytes = 16;
const tagBytes = 16;
/** A fault within this time makes an ambiguous answer count as another fault. */
const suspiciousMs = 1000;
const invalid = (): TokenFailure => new TokenFailure({ kind: 'invalid' });

const isFault = (error: unknown, ...rvs: string[]): boolean =>
  error instanceof TokenFailure && error.failure.kind === 'fault' && (rvs.length === 0 || rvs.includes(error.failure.rv));

/** Encrypts, decrypts and signs with keys of the token. */
export class TokenCipher {
  readonly #token: Token;
  readonly #keys: Keys;
  readonly #abilities: TokenAbilities;
  /** For each key the proof that runs, and the one that begins after it: all that failed meanwhile share that. */
  readonly #judging = new Map<string, { running: Promise<void>; next?: Promise<void> }>();

  constructor(token: Token, keys: Keys, abilities: TokenAbilities) {
    this.#token = token;
    this.#keys = keys;
    this.#abilities = abilities;
  }

  async encrypt({ key, algorithm, plaintext, aad = Buffer.alloc(0), iv, paddingMode }: Calls['encrypt']['takes']): Promise<Calls['encrypt']['gives']> {
    const chosen = iv ?? randomBytes(ivBytes(algorithm));
    const padded = algorithm === 'AES_GCM' || paddingMode === 'NO_PADDING' ? plaintext : addPkcs7(plaintext);
    const ciphertext = await this.#withKey(key, (session, handle) => session.encrypt(aesMechanism(algorithm, chosen, aad), handle, padded));
    return { ciphertext, ...(chosen.length > 0 ? { iv: chosen } : {}) };
  }

  /** @throws TokenFailure of kind `invalid` for whatever does not open. */
  async decrypt({
    key,
    algorithm,
    ciphertext,
    aad = Buffer.alloc(0),
    iv = Buffer.alloc(0),
    paddingMode,
  }: Calls['decrypt']['takes']): Promise<{ plaintext: Uint8Array }> {
    if (algorithm.startsWith('RSAES_')) return { plaintext: await this.#decryptOaep(key, algorithm, ciphertext) };
    const mechanism = aesMechanism(algorithm, iv, aad);
    if (algorithm === 'AES_GCM') {
      if (ciphertext.length < tagBytes) throw invalid();
      return { plaintext: await this.#decryptJudged(key, mechanism, ciphertext) };
    }
    if (ciphertext.length === 0 || ciphertext.length % blockBytes !== 0) throw invalid();
    const padded = await this.#withKey(key, (session, handle) => session.decrypt(mechanism, handle, ciphertext)); // no padding, so it always opens
    const plaintext = paddingMode === 'NO_PADDING' ? padded : removePkcs7(padded);
    if (!plaintext) throw invalid();
    return { plaintext };
  }

  /** @returns r ‖ s for EC. */
  async sign({ key, algorithm, digest }: Calls['sign']['takes']): Promise<{ signature: Uint8Array }> {
    const { mechanism, input } = signMechanism(algorithm, digest);
    return { signature: await this.#withKey(key, (session, handle) => session.sign(mechanism, handle, input)) };
  }

  async #decryptOaep(key: KeyRef, algorithm: EncryptionAlgorithm, ciphertext: Uint8Array): Promise<Uint8Array> {
    const modulusBytes = Number(key.keySpec.slice('RSA_'.length)) / 8;
    if (ciphertext.length !== modulusBytes) throw invalid();
    if (this.#abilities.oaep[algorithm] === 'token') return await this.#decryptJudged(key, oaepMechanism(algorithm), ciphertext);
    const message = removeOaep(algorithm, await this.#decryptJudged(key, rawRsa, ciphertext)); // a number above the modulus does not open
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

  /**
   * Decrypts where the same answer may mean a bad ciphertext or a sick token. What failed is tried again on a fresh session once the key has
   * been proven on another; it counts as a bad ciphertext only when it fails again, the key is proven again, and nothing else was sick.
   */
  async #decryptJudged(key: KeyRef, mechanism: Mechanism, ciphertext: Uint8Array): Promise<Uint8Array> {
    const started = performance.now();
    const attempt = (fresh: boolean): Promise<Buffer | undefined> =>
      this.#withKey(key, (session, handle) => session.decrypt(mechanism, handle, ciphertext), fresh).catch((error: unknown) => {
        if (error instanceof TokenFailure && isAmbiguous(error.failure)) return undefined;
        throw error;
      });
    const first = await attempt(false);
    if (first) return first;
    await this.#judge(key);
    const second = await attempt(true);
    if (second) {
      this.#token.noteFault();
      return second;
    }
    for (let proof = 0; proof < 2; proof += 1) await this.#judge(key);
    if (this.#token.lastFaultTime > started - suspiciousMs) throw new TokenFailure({ kind: 'fault', rv: 'CKR_GENERAL_ERROR', call: 'C_Decrypt' });
    throw invalid();
  }

  /** Proves the key on a fresh session, in a proof that begins after this call; at most one runs for a key. */
  async #judge(key: KeyRef): Promise<void> {
    const { keyVersionId } = key;
    const current = this.#judging.get(keyVersionId);
    if (!current) return await this.#startProof(key);
    current.next ??= current.running.catch(() => undefined).then(() => this.#startProof(key));
    await current.next;
  }

  #startProof(key: KeyRef): Promise<void> {
    const { keyVersionId } = key;
    const running = this.#keys.prove(key).catch((error: unknown) => {
      this.#token.noteFault();
      throw error;
    });
    const entry = { running };
    this.#judging.set(keyVersionId, entry);
    const done = (): void => {
      if (this.#judging.get(keyVersionId) === entry && !('next' in entry)) this.#judging.delete(keyVersionId);
    };
    running.then(done, done);
    return running;
  }
}
