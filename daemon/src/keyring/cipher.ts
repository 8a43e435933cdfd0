import type { EncryptionAlgorithm, PaddingMode } from '@kms-agent/protocol';
import { AgentError, beginsLikeBlob, decodeBlob, encodeBlob, encodeBlobHeader } from '@kms-agent/protocol';
import type { Asker } from '../caller/identity.ts';
import { canEncrypt, type Encrypter } from '../providers/provider.ts';
import type { Budget } from './budget.ts';
import { findVersion, initialVersion, type Key, type KeyVersionEntry, primaryVersion } from './key.ts';
import type { Keyring } from './keyring.ts';
import { abilitiesOf } from './metadata.ts';
import { isSymmetric, refuseAlgorithm } from './rules.ts';

/** What the raw operations share. */
export interface RawInput {
  readonly algorithm?: EncryptionAlgorithm;
  readonly aad?: Uint8Array;
  readonly iv?: Uint8Array;
  readonly paddingMode?: PaddingMode;
}

/** Facts about the caller that go under the seal of an advance blob. */
export interface BoundTo {
  /** The blob's `bound` byte. */
  readonly bound: number;
  readonly facts: Uint8Array;
}

/** The facts that a blob asks for, of who wants to open it; undefined when they are not known. */
export type FindFacts = (bound: number) => Uint8Array | undefined;

/** Something that was encrypted, and with what. */
export interface Sealed {
  readonly key: Key;
  readonly version: KeyVersionEntry;
  readonly algorithm: EncryptionAlgorithm;
  readonly ciphertextBlob: Uint8Array<ArrayBuffer>;
  readonly iv?: Uint8Array<ArrayBuffer>;
}

/** Something that was decrypted, and with what. */
export interface Opened {
  readonly key: Key;
  readonly version: KeyVersionEntry;
  readonly algorithm: EncryptionAlgorithm;
  readonly plaintext: Uint8Array<ArrayBuffer>;
}

const invalid = (path: string, reason: string): AgentError => new AgentError('ERR_INVALID_PARAMS', { path, reason });

const nothing = new Uint8Array();
const unbound: BoundTo = { bound: 0, facts: nothing };

/** What a caller says of the blob that it wants opened. */
export interface Expected {
  readonly keyId?: string;
  readonly keyVersionId?: string;
}

/** Whether the key's policy asks for facts about its caller in each ciphertext. */
export const bindsCiphertexts = ({ policy }: Key): boolean => policy?.statements.some(({ bindAad }) => bindAad !== undefined) ?? false;

/** What is raw carries no facts about who made it, so that a key whose policy asks for them must not make or open it. */
function requireUnbound(key: Key): void {
  if (bindsCiphertexts(key))
    throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: "The key's policy binds ciphertexts to their caller; use the advance operations." });
}

/** Bytes that nothing else shares memory with. */
function own(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength ? new Uint8Array(buffer) : new Uint8Array(bytes);
}

/** The length of IV that an algorithm takes; 0 for none. */
const ivBytes: Record<EncryptionAlgorithm, number> = { AES_GCM: 12, AES_CBC: 16, AES_ECB: 0, RSAES_OAEP_SHA_256: 0, RSAES_OAEP_SHA_1: 0 };

/** Refuses parameters that do not apply; nothing is ignored. */
function checkApplies(algorithm: EncryptionAlgorithm, { aad, iv, paddingMode }: RawInput): void {
  if (aad && algorithm !== 'AES_GCM') throw invalid('/aad', `does not apply to ${algorithm}`);
  if (iv && iv.length !== ivBytes[algorithm])
    throw invalid('/iv', ivBytes[algorithm] === 0 ? `does not apply to ${algorithm}` : `must be ${ivBytes[algorithm]} bytes for ${algorithm}`);
  if (paddingMode && algorithm !== 'AES_CBC' && algorithm !== 'AES_ECB') throw invalid('/paddingMode', `does not apply to ${algorithm}`);
}

/** Raw operations may neither open nor make advance blobs, whose authenticated data begins with these bytes. */
function checkRawAad(aad: Uint8Array | undefined): void {
  if (aad && beginsLikeBlob(aad)) throw invalid('/aad', 'must not begin with 6b 6d 73, which is kept for advance blobs');
}

/** Encrypts and decrypts with keys of the keyring, raw and as advance blobs. */
export class Cipher {
  readonly #keyring: Keyring;
  readonly #budget: Budget;
  readonly #headers = new WeakMap<KeyVersionEntry, Uint8Array>();

  constructor(keyring: Keyring, budget: Budget) {
    this.#keyring = keyring;
    this.#budget = budget;
  }

  /** Refuses a key that is not for encryption, or not symmetric where that is needed. */
  requireSymmetric(key: Key): Key {
    if (!isSymmetric(key.keySpec)) throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'This needs a symmetric key.' });
    return key;
  }

  /** Refuses what is wrong with raw parameters whatever the key; before the key is looked for. @throws AgentError `ERR_INVALID_PARAMS`. */
  checkRaw(input: RawInput): void {
    checkRawAad(input.aad);
    if (input.algorithm) checkApplies(input.algorithm, input);
  }

  /** Raw: with the initial version unless told otherwise. */
  async encrypt(key: Key, plaintext: Uint8Array, input: RawInput, keyVersionId?: string, asker?: Asker): Promise<Sealed> {
    checkRawAad(input.aad);
    requireUnbound(key);
    const { algorithm, encrypter } = this.#choose(key, input.algorithm);
    if (input.iv && algorithm === 'AES_GCM') throw invalid('/iv', 'is made by the agent for AES_GCM: one IV used twice would break the key');
    checkApplies(algorithm, input);
    const version = keyVersionId === undefined ? initialVersion(key) : findVersion(key, keyVersionId);
    const sealed = { ...input, algorithm, plaintext };
    const { ciphertext, iv } = isSymmetric(key.keySpec)
      ? await this.#keyring.withSecret(key, this.#count(key, version), (ref) => encrypter.encrypt(ref, sealed, asker))
      : await encrypter.encrypt(this.#keyring.use(key, version, 'public'), sealed, asker);
    return { key, version, algorithm, ciphertextBlob: own(ciphertext), ...(iv ? { iv: own(iv) } : {}) };
  }

  /** Raw: with the initial version unless told otherwise. @throws AgentError `ERR_INVALID_CIPHERTEXT`. */
  async decrypt(key: Key, ciphertext: Uint8Array, input: RawInput, keyVersionId?: string, asker?: Asker): Promise<Opened> {
    checkRawAad(input.aad);
    requireUnbound(key);
    const { algorithm, encrypter } = this.#choose(key, input.algorithm);
    checkApplies(algorithm, input);
    if (!input.iv && ivBytes[algorithm] > 0) throw invalid('/iv', `is required for ${algorithm}`);
    const version = keyVersionId === undefined ? initialVersion(key) : findVersion(key, keyVersionId);
    const sealed = { ...input, algorithm, ciphertext };
    const plaintext = await this.#keyring.withSecret(key, this.#keyring.use(key, version), (ref) => encrypter.decrypt(ref, sealed, asker));
    return { key, version, algorithm, plaintext: own(plaintext) };
  }

  /** With the primary version, into a blob that names it. */
  async advanceEncrypt(key: Key, plaintext: Uint8Array, aad: Uint8Array = nothing, to: BoundTo = unbound, asker?: Asker): Promise<Sealed> {
    const { encrypter } = this.#choose(this.requireSymmetric(key), 'AES_GCM');
    this.#keyring.use(key, primaryVersion(key));
    const counted = this.#budget.countPrimary(key);
    const version = this.#keyring.use(key, counted instanceof Promise ? await counted : counted);
    const header = this.#headerOf(version, to.bound);
    const isPlain = to.facts.length === 0 && aad.length === 0; // as most are: nothing to put together
    const input = { algorithm: 'AES_GCM', plaintext, aad: isPlain ? header : Buffer.concat([header, to.facts, aad]) } as const;
    const { ciphertext, iv } = await this.#keyring.withSecret(key, version, (ref) => encrypter.encrypt(ref, input, asker));
    if (!iv) throw new AgentError('ERR_INTERNAL', {}, { cause: new TypeError('the provider made no IV') });
    return { key, version, algorithm: 'AES_GCM', ciphertextBlob: encodeBlob(header, iv, ciphertext) };
  }

  /**
   * Opens an advance blob with the version that it names.
   * @throws AgentError `ERR_INVALID_CIPHERTEXT` for whatever does not open, an unknown version and a version of another key included.
   */
  async advanceDecrypt(
    blob: Uint8Array,
    aad: Uint8Array = nothing,
    expected: Expected = {},
    findFacts: FindFacts = () => undefined,
    asker?: Asker,
  ): Promise<Opened> {
    const parsed = decodeBlob(blob);
    const key = parsed && this.#keyring.keyByVersion(parsed.keyVersionId);
    const expectedKey = expected.keyId === undefined ? key : this.requireSymmetric(this.#keyring.resolve(expected.keyId));
    if (!parsed || !key || !isSymmetric(key.keySpec) || expectedKey !== key || (expected.keyVersionId ?? parsed.keyVersionId) !== parsed.keyVersionId)
      throw new AgentError('ERR_INVALID_CIPHERTEXT');
    const facts = parsed.bound === 0 ? nothing : findFacts(parsed.bound);
    if (!facts) throw new AgentError('ERR_INVALID_CIPHERTEXT');
    const { encrypter, algorithm } = this.#choose(key, parsed.algorithm);
    const version = this.#keyring.use(key, findVersion(key, parsed.keyVersionId));
    const { ciphertext, iv, header } = parsed;
    const input = { algorithm, ciphertext, iv, aad: Buffer.concat([header, facts, aad]) };
    const plaintext = await this.#keyring.withSecret(key, version, (ref) => encrypter.decrypt(ref, input, asker));
    return { key, version, algorithm, plaintext: own(plaintext) };
  }

  /** Of an advance blob; that of a blob without facts is made once for a version. */
  #headerOf(version: KeyVersionEntry, bound: number): Uint8Array {
    if (bound !== unbound.bound) return encodeBlobHeader(version.keyVersionId, bound);
    const known = this.#headers.get(version);
    if (known) return known;
    const header = encodeBlobHeader(version.keyVersionId);
    this.#headers.set(version, header);
    return header;
  }

  /** Lets a version be used for one encryption more. */
  #count(key: Key, version: KeyVersionEntry): KeyVersionEntry {
    const current = this.#keyring.use(key, version);
    this.#budget.count(key, current);
    return current;
  }

  #choose(key: Key, wanted: EncryptionAlgorithm | undefined): { algorithm: EncryptionAlgorithm; encrypter: Encrypter } {
    if (key.keyUsage !== 'ENCRYPT_DECRYPT') throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'The key is for signatures.' });
    const { encryptionAlgorithms } = abilitiesOf(this.#keyring, key);
    const algorithm = wanted ?? encryptionAlgorithms[0];
    if (!algorithm || !encryptionAlgorithms.includes(algorithm))
      throw refuseAlgorithm(this.#keyring.findProvider(key.provider), { keySpec: key.keySpec, wanted: algorithm ?? 'key' });
    const provider = this.#keyring.providerOf(key);
    if (!canEncrypt(provider)) throw new AgentError('ERR_UNSUPPORTED_OPERATION');
    return { algorithm, encrypter: provider };
  }
}
