import { constants, createHash, createPublicKey, type KeyObject, publicEncrypt, randomBytes, verify } from 'node:crypto';
import type { EncryptionAlgorithm, SigningAlgorithm } from '@kms-agent/protocol';
import { type KeyRef, type MadeKey, type NewKey, type TokenAbilities, TokenFailure } from '../messages.ts';
import { aesMechanism, ivBytes, oaepMechanism, rawRsa, signMechanism } from './mechanism.ts';
import { removeOaep } from './padding.ts';
import type { Handle } from './pkcs11js.ts';
import type { Session } from './session.ts';

/** What is sealed in the vault beside the key: for AES a random value and what the key made of it, for pairs how they prove themselves. */
type Proof =
  | { readonly algorithm: EncryptionAlgorithm; readonly iv: string; readonly value: string; readonly sealed: string }
  | { readonly algorithm: EncryptionAlgorithm | SigningAlgorithm };

const noAad = Buffer.alloc(0);
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const fromBase64 = (text: string): Buffer => Buffer.from(text, 'base64');

/** A cipher without a tag tells a wrong key from a sick token: it answers, and the answer is wrong. */
const bestForProof: readonly EncryptionAlgorithm[] = ['AES_CBC', 'AES_ECB', 'AES_GCM'];

/** Makes proofs and holds keys to them: 32 random bytes, not a check value of three, which can be forged. */
export class Prover {
  readonly #abilities: TokenAbilities;

  constructor(abilities: TokenAbilities) {
    this.#abilities = abilities;
  }

  async make(session: Session, handle: Handle, { keySpec, keyUsage }: Pick<NewKey, 'keySpec' | 'keyUsage'>): Promise<Uint8Array> {
    return Buffer.from(
      JSON.stringify(keySpec.startsWith('AES_') ? await this.#makeForAes(session, handle) : { algorithm: this.#algorithmFor(keySpec, keyUsage) }),
    );
  }

  /**
   * Makes a proof and holds the new key to it at once: a token may take or make one that it cannot use.
   * @param objects - the one that works first; all are taken out again where the token does not do what the proof needs.
   * @returns undefined where it does not hold.
   */
  async makeProven(session: Session, objects: readonly [Handle, ...Handle[]], key: NewKey, publicKey?: Uint8Array): Promise<MadeKey | undefined> {
    const [handle] = objects;
    try {
      const made = { proof: await this.make(session, handle, key), ...(publicKey ? { publicKey } : {}) };
      return (await this.holds(session, handle, { ...key, ...made })) ? made : undefined;
    } catch (error) {
      if (error instanceof TokenFailure && error.failure.kind === 'unsupported') for (const object of objects) session.destroy(object);
      throw error;
    }
  }

  /**
   * Whether the key behind a handle is the one that the proof was made with.
   * @throws TokenFailure when the token does not say.
   */
  async holds(session: Session, handle: Handle, { keySpec, proof, publicKey }: KeyRef): Promise<boolean> {
    const stored = JSON.parse(Buffer.from(proof).toString('utf8')) as Proof; // sealed by the agent, made above
    if ('sealed' in stored) return await this.#opens(session, handle, stored);
    const spki = keyObject(keySpec, publicKey);
    if (stored.algorithm.startsWith('RSAES_')) return await this.#decrypts(session, handle, stored.algorithm as EncryptionAlgorithm, spki);
    return await this.#signs(session, handle, stored.algorithm as SigningAlgorithm, spki);
  }

  /** Whether an RSA key opens, in the way of an algorithm, what its public key sealed. @throws TokenFailure when the token does not say. */
  async decrypts(session: Session, handle: Handle, algorithm: EncryptionAlgorithm, { keySpec, publicKey }: KeyRef): Promise<boolean> {
    return await this.#decrypts(session, handle, algorithm, keyObject(keySpec, publicKey));
  }

  #algorithmFor(keySpec: string, keyUsage: string): EncryptionAlgorithm | SigningAlgorithm {
    if (keySpec.startsWith('EC_')) return 'ECDSA_SHA_256';
    const { rsaSigning, oaep } = this.#abilities;
    const inHelper = (Object.keys(oaep) as EncryptionAlgorithm[]).find((algorithm) => oaep[algorithm] === 'helper'); // its keys are algorithms
    const chosen = keyUsage === 'SIGN_VERIFY' ? rsaSigning[0] : (inHelper ?? (Object.keys(oaep)[0] as EncryptionAlgorithm | undefined));
    if (!chosen) throw new TokenFailure({ kind: 'failed', rv: 'nothing to prove an RSA key with', call: 'proof' });
    return chosen;
  }

  async #makeForAes(session: Session, handle: Handle): Promise<Proof> {
    const algorithm = bestForProof.find((candidate) => this.#abilities.aes.includes(candidate)) ?? 'AES_GCM';
    const [value, iv] = [randomBytes(32), randomBytes(ivBytes(algorithm))];
    const sealed = await session.encrypt(aesMechanism(algorithm, iv, noAad), handle, value);
    return { algorithm, iv: base64(iv), value: base64(value), sealed: base64(sealed) };
  }

  async #opens(session: Session, handle: Handle, { algorithm, iv, value, sealed }: Extract<Proof, { sealed: string }>): Promise<boolean> {
    try {
      const opened = await session.decrypt(aesMechanism(algorithm, fromBase64(iv), noAad), handle, fromBase64(sealed));
      return Buffer.compare(opened, fromBase64(value)) === 0;
    } catch (error) {
      return isRefusal(error);
    }
  }

  async #decrypts(session: Session, handle: Handle, algorithm: EncryptionAlgorithm, key: KeyObject): Promise<boolean> {
    const challenge = randomBytes(32);
    const oaepHash = algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256';
    const sealed = publicEncrypt({ key, oaepHash, padding: constants.RSA_PKCS1_OAEP_PADDING }, challenge);
    const inToken = this.#abilities.oaep[algorithm] === 'token';
    try {
      const opened = await session.decrypt(inToken ? oaepMechanism(algorithm) : rawRsa, handle, sealed);
      const message = inToken ? opened : removeOaep(algorithm, opened);
      return message !== undefined && Buffer.compare(message, challenge) === 0;
    } catch (error) {
      return isRefusal(error);
    }
  }

  async #signs(session: Session, handle: Handle, algorithm: SigningAlgorithm, key: KeyObject): Promise<boolean> {
    const challenge = randomBytes(32);
    const { mechanism, input } = signMechanism(algorithm, createHash('sha256').update(challenge).digest());
    try {
      const signature = await session.sign(mechanism, handle, input);
      const padding = algorithm === 'RSA_PSS_SHA_256' ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
      return verify('sha256', challenge, algorithm === 'ECDSA_SHA_256' ? { key, dsaEncoding: 'ieee-p1363' } : { key, padding, saltLength: 32 }, signature);
    } catch (error) {
      return isRefusal(error);
    }
  }
}

function keyObject(keySpec: string, publicKey: Uint8Array | undefined): KeyObject {
  if (!publicKey) throw new TypeError(`a ${keySpec} key without its public key`);
  return createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' });
}

/** False for a token that says no, which proves nothing; a sick one is another matter, and so are one that does not do it and an error of ours. */
function isRefusal(error: unknown): false {
  if (error instanceof TokenFailure && (error.failure.kind === 'invalid' || error.failure.kind === 'failed')) return false;
  throw error;
}
