import type {
  EncryptionAlgorithm,
  ImportWrappingAlgorithm,
  ImportWrappingKeySpec,
  KeySpec,
  KeyUsage,
  MessageType,
  PaddingMode,
  ProviderStatus,
  SignatureFormat,
  SigningAlgorithm,
} from '@kms-agent/protocol';
import type { Asker } from '../caller/identity.ts';

/**
 * One version of a key as its provider knows it. `material` is the provider's own state, sealed in the vault with the key:
 * for `software` the raw AES key or the private key as PKCS#8 DER (RFC 5958), for a token what finds and proves the object.
 */
export interface MaterialRef {
  readonly keyVersionId: string;
  readonly keySpec: KeySpec;
  readonly material: Uint8Array;
  /** SPKI DER of an asymmetric version, where it is known. */
  readonly publicKey?: Uint8Array;
}

/** Material to make: what it will be called and what it is for. */
export interface NewMaterial {
  readonly keyId: string;
  readonly keyVersionId: string;
  readonly keySpec: KeySpec;
  readonly keyUsage: KeyUsage;
}

/** What generate made: the state to seal, and for asymmetric specs the public key as SPKI DER (RFC 5280 section 4.1.2.7). */
export interface GeneratedMaterial {
  readonly material: Uint8Array;
  readonly publicKey?: Uint8Array;
}

/** What a provider offers for a spec and usage; the first of each list is the key's default. */
export interface Abilities {
  readonly encryptionAlgorithms: readonly EncryptionAlgorithm[];
  readonly signingAlgorithms: readonly SigningAlgorithm[];
}

export interface EncryptInput {
  readonly algorithm: EncryptionAlgorithm;
  readonly plaintext: Uint8Array;
  /** Absent means empty, AES_GCM only. */
  readonly aad?: Uint8Array;
  /** AES_CBC only, 16 bytes: the caller's own. For AES_GCM the provider always makes a fresh 12-byte one. */
  readonly iv?: Uint8Array;
  readonly paddingMode?: PaddingMode;
}

/** `ciphertext` is ciphertext ‖ 16-byte tag for AES_GCM, k bytes for RSA. `iv` is absent for RSA and AES_ECB. */
export interface EncryptOutput {
  readonly ciphertext: Uint8Array;
  readonly iv?: Uint8Array;
}

export interface DecryptInput {
  readonly algorithm: EncryptionAlgorithm;
  readonly ciphertext: Uint8Array;
  readonly aad?: Uint8Array;
  readonly iv?: Uint8Array;
  readonly paddingMode?: PaddingMode;
}

export interface SignInput {
  readonly algorithm: SigningAlgorithm;
  /** The message itself, or its 32-byte SHA-256 with `DIGEST`. */
  readonly message: Uint8Array;
  readonly messageType: MessageType;
  /** EC only: `DER` (RFC 3279 section 2.2.3) or `P1363` (r ‖ s). */
  readonly signatureFormat?: SignatureFormat;
}

export interface VerifyInput extends SignInput {
  readonly signature: Uint8Array;
}

/** Can encrypt and decrypt. `asker` is who waits for it, among whom turns are taken where not all can be served at once. */
export interface Encrypter {
  encrypt(ref: MaterialRef, input: EncryptInput, asker?: Asker): Promise<EncryptOutput>;
  /** @throws AgentError `ERR_INVALID_CIPHERTEXT` for whatever does not open, one answer for all causes. */
  decrypt(ref: MaterialRef, input: DecryptInput, asker?: Asker): Promise<Uint8Array>;
}

/** Can sign and verify. `asker` as in Encrypter. */
export interface Signer {
  sign(ref: MaterialRef, input: SignInput, asker?: Asker): Promise<Uint8Array>;
  /** False for a wrong, malformed or foreign signature. */
  verify(ref: MaterialRef, input: VerifyInput): Promise<boolean>;
}

/** A pair that wraps material on its way here: the public key as SPKI DER, and what finds the private one again. */
export interface WrappingPair {
  readonly publicKey: Uint8Array;
  /** The provider's own: for `software` PKCS#8 DER. The caller seals it and zeroes it. */
  readonly state: Uint8Array;
}

export interface WrappingPairInput {
  /** A UUID that the provider may keep the pair under. */
  readonly id: string;
  readonly keySpec: ImportWrappingKeySpec;
  readonly algorithm: ImportWrappingAlgorithm;
  readonly label: string;
}

export interface UnwrapInput {
  readonly algorithm: ImportWrappingAlgorithm;
  readonly state: Uint8Array;
  readonly wrapped: Uint8Array;
  /** Whether the key has material now: it must not be lost by an import that fails. */
  readonly hasMaterial: boolean;
  /** The `checkValue` that the provider answered when the key was first imported. */
  readonly previous?: string;
}

/** Imported material. `checkValue` tells it from other material where its bytes are not to be had, and is no secret. */
export interface UnwrappedMaterial extends GeneratedMaterial {
  readonly unwrappedIn: 'TOKEN' | 'AGENT';
  readonly checkValue?: string;
}

/** Can take material from outside. */
export interface Importer {
  /** Ways to wrap material for such a key, best first. */
  importAlgorithms(keySpec: KeySpec): readonly ImportWrappingAlgorithm[];
  makeWrappingPair(input: WrappingPairInput): Promise<WrappingPair>;
  /** @throws AgentError `ERR_INVALID_KEY_MATERIAL` for what does not unwrap, or is not material of the ref's spec. */
  unwrap(made: NewMaterial, input: UnwrapInput): Promise<UnwrappedMaterial>;
}

/** Keeps in memory what it makes of key material. */
export interface Forgetter {
  /** Drops what is kept for a version; it is made again when the version is used again. @returns whether a key object was among it. */
  forget(keyVersionId: string): boolean;
}

/**
 * Where key material lives. A narrow required core; what else it can do is asked for with `canEncrypt`, `canSign` and `canImport`.
 * Providers throw only AgentError.
 */
export interface Provider {
  readonly name: string;
  readonly kind: 'software' | 'pkcs11';
  /** Waits until it can be used. @throws AgentError `ERR_HSM_UNAVAILABLE`, `ERR_HSM_PIN_WRONG`, `ERR_HSM_PIN_LOCKED`. */
  ready(): Promise<void>;
  status(): ProviderStatus;
  /** Undefined when the provider cannot hold keys of this spec and usage at all, or was never ready. */
  abilities(keySpec: KeySpec, keyUsage: KeyUsage): Abilities | undefined;
  generate(made: NewMaterial): Promise<GeneratedMaterial>;
  /** SPKI DER. @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a symmetric key. */
  publicKey(ref: MaterialRef): Promise<Uint8Array>;
  /** Destroys the material where it lives. The caller forgets its own copy. */
  destroy(ref: MaterialRef): Promise<void>;
  /** Drops everything derived from key material that is held in memory. The provider stays usable. */
  lock(): Promise<void>;
  close(): Promise<void>;
}

/** What the vault keeps of tokens: PINs, and the serial number of the token that took one first. */
export interface PinBook {
  read(token: string): Uint8Array | undefined;
  save(token: string, pin: Uint8Array): void;
  serialOf(token: string): string | undefined;
  saveSerial(token: string, serial: string): void;
}

/** A key object as a token shows it. */
export interface ListedKey {
  readonly keyVersionId: string;
  readonly label: string;
}

/** What was asked of a key of a spec, or of such a key's material, and is not offered: an algorithm, the key itself, or its import. */
export interface Refused {
  readonly keySpec: KeySpec;
  readonly wanted: EncryptionAlgorithm | SigningAlgorithm | 'key' | 'import';
}

/** A provider whose keys are in a store of its own, which can go away, come back, and hold what the vault does not know. */
export interface TokenProvider {
  readonly kind: 'pkcs11';
  /** A token whose PIN lies in the vault cannot open it. */
  readonly keepsPinInVault: boolean;
  /** Nobody has woken it since it was locked. */
  readonly isAsleep: boolean;
  /** The vault is open: begins to connect. `onReady` hears of each time that the token is there. */
  begin(pins: PinBook, onReady: () => void): void;
  /** The vault is locked, and a keyslot knows the serial number of the token: no other is sent a PIN, unless the settings name one. */
  expect(serial: string | undefined): void;
  /** Connects with the PIN of a person, or again with the source's, and waits. @throws AgentError as ready. */
  logIn(pin: Uint8Array | undefined): Promise<void>;
  /** Whether the object of a version was there and proven when it was last looked for, as far as is known. */
  isAvailable(keyVersionId: string): boolean;
  /** The token does not show the object of a version. */
  markMissing(keyVersionId: string): void;
  /** The token shows the object of a version: it is missing no more, and is proven when it is used. */
  markShown(keyVersionId: string): void;
  /** A request was refused with ERR_UNSUPPORTED_ALGORITHM: where it is the token that does not do it, the log says so, once for each mechanism. */
  noteRefused(refused: Refused): void;
  list(): Promise<readonly ListedKey[]>;
  dropWrappingPair(id: string): Promise<void>;
}

/** Narrows to a token. */
export function isToken(provider: Provider): provider is Provider & TokenProvider & Encrypter {
  return provider.kind === 'pkcs11';
}

/** Narrows to a provider that can encrypt and decrypt. */
export function canEncrypt(provider: Provider): provider is Provider & Encrypter {
  return 'encrypt' in provider && 'decrypt' in provider;
}

/** Narrows to a provider that can sign and verify. */
export function canSign(provider: Provider): provider is Provider & Signer {
  return 'sign' in provider && 'verify' in provider;
}

/** Narrows to a provider that can take material from outside. */
export function canImport(provider: Provider): provider is Provider & Importer {
  return 'unwrap' in provider && 'makeWrappingPair' in provider;
}

/** Narrows to a provider that keeps what it makes of key material. */
export function canForget(provider: Provider): provider is Provider & Forgetter {
  return 'forget' in provider;
}

export type { ProviderStatus };
