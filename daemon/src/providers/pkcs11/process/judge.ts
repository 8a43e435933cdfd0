import { randomBytes } from 'node:crypto';
import type { EncryptionAlgorithm } from '@kms-agent/protocol';
import { type KeyRef, TokenFailure } from '../messages.ts';
import { SharedRuns } from '../shared-runs.ts';
import type { Keys } from './keys.ts';
import { aesMechanism, ivBytes } from './mechanism.ts';
import type { Prover } from './proof.ts';
import type { Session } from './session.ts';
import type { Token } from './token.ts';

/** What a key sealed, to be opened again. */
interface Control {
  readonly iv: Buffer;
  readonly value: Buffer;
  readonly sealed: Buffer;
}

/** Times that something good is opened each time that a key is shown to be well. */
const openings = 2;
/** Keys whose control is kept. */
const maxControls = 1000;
const noAad = Buffer.alloc(0);

/**
 * Tells a bad ciphertext from a token that is sick for a moment, where both are answered alike: the key is shown to open what is good, in the
 * same way. At most one such showing runs for a key, and all that wait share it.
 */
export class Judge {
  readonly #token: Token;
  readonly #keys: Keys;
  readonly #prover: Prover;
  readonly #controls = new Map<string, Control>();
  readonly #showings = new SharedRuns<void>();

  constructor(token: Token, keys: Keys, prover: Prover) {
    this.#token = token;
    this.#keys = keys;
    this.#prover = prover;
  }

  /** Shows, after this call, that a key is the one that was made and opens what is good. @throws TokenFailure when it is not, or does not. */
  async show(key: KeyRef, algorithm: EncryptionAlgorithm): Promise<void> {
    await this.#showings.run(`${key.keyVersionId} ${algorithm}`, () => this.#show(key, algorithm));
  }

  async #show(key: KeyRef, algorithm: EncryptionAlgorithm): Promise<void> {
    try {
      await this.#keys.prove(key);
      for (let left = openings; left > 0; left -= 1)
        if (!(await this.#opens(key, algorithm))) throw new TokenFailure({ kind: 'fault', rv: 'a good ciphertext did not open', call: 'C_Decrypt' });
    } catch (error) {
      this.#token.noteFault();
      throw error;
    }
  }

  async #opens(key: KeyRef, algorithm: EncryptionAlgorithm): Promise<boolean> {
    const handle = await this.#keys.find(key);
    return await this.#token.use(async (session) => {
      if (algorithm.startsWith('RSAES_')) return await this.#prover.decrypts(session, handle, algorithm, key);
      const { iv, value, sealed } = this.#controls.get(key.keyVersionId) ?? (await this.#makeControl(session, handle, key));
      return Buffer.compare(await session.decrypt(aesMechanism('AES_GCM', iv, noAad), handle, sealed), value) === 0;
    });
  }

  async #makeControl(session: Session, handle: Buffer, { keyVersionId }: KeyRef): Promise<Control> {
    const [iv, value] = [randomBytes(ivBytes('AES_GCM')), randomBytes(32)];
    const control = { iv, value, sealed: await session.encrypt(aesMechanism('AES_GCM', iv, noAad), handle, value) };
    const [oldest] = this.#controls.keys();
    if (oldest !== undefined && this.#controls.size >= maxControls) this.#controls.delete(oldest);
    this.#controls.set(keyVersionId, control);
    return control;
  }
}
