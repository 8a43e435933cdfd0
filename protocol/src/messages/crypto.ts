import { z } from 'zod';
import type { EncryptionAlgorithm, KeySpec, KeyUsage, MessageType, PaddingMode, SignatureFormat, SigningAlgorithm } from '../names.ts';
import { encryptionAlgorithms, keySpecs, keyUsages, messageTypes, paddingModes, signatureFormats, signingAlgorithms } from '../names.ts';
import { bytes, keyReference, openEnum, ownBytes, schemaOf, uuid } from '../schema.ts';

const plaintext = () => bytes({ min: 1, max: 65_536 });
const aad = () => bytes({ max: 8192 }).exactOptional();
const iv = () => bytes({ min: 12, max: 16 }).exactOptional();
const blob = () => bytes({ min: 1, max: 131_072 });
const keyRef = () => keyReference().exactOptional();
const versionRef = () => uuid().exactOptional();
const algorithm = () => z.enum(encryptionAlgorithms).exactOptional();
const padding = () => z.enum(paddingModes).exactOptional();

/** Fields that every answer about one key version carries. */
export interface KeyVersionRef {
  /** The real id, also when an alias or no key was named. */
  keyId: string;
  keyVersionId: string;
}
const versionFields = { keyId: z.string(), keyVersionId: z.string() };

export interface EncryptParams {
  /** Key id or alias; the caller's default key if absent. */
  keyId?: string;
  /** 1 to 65,536 bytes; for RSA at most k - 2h - 2 (190 for RSA_2048 with SHA-256). */
  plaintext: Uint8Array;
  /** Default: the first of the key's encryptionAlgorithms. */
  algorithm?: EncryptionAlgorithm;
  /** AES_GCM only, at most 8192 bytes; authenticated, not stored: decrypt needs the same. */
  aad?: Uint8Array;
  /** AES_CBC only. */
  paddingMode?: PaddingMode;
  /** AES_CBC only, 16 bytes; for AES_GCM the agent always makes it. */
  iv?: Uint8Array;
  /** Default: the key's initial version. */
  keyVersionId?: string;
}
export const encryptParams = schemaOf<EncryptParams>()(
  z.strictObject({ keyId: keyRef(), plaintext: plaintext(), algorithm: algorithm(), aad: aad(), paddingMode: padding(), iv: iv(), keyVersionId: versionRef() }),
);

export interface EncryptResult extends KeyVersionRef {
  /** Raw: ciphertext ‖ 16-byte tag for AES_GCM, RSAES-OAEP (RFC 8017 section 7.1) for RSA. */
  ciphertextBlob: Uint8Array<ArrayBuffer>;
  algorithm: EncryptionAlgorithm;
  /** 12 bytes for AES_GCM, 16 for AES_CBC, absent otherwise. Not secret; decrypt needs it. */
  iv?: Uint8Array<ArrayBuffer>;
  paddingMode?: PaddingMode;
}
export const encryptResult = schemaOf<EncryptResult>()(
  z.object({
    ...versionFields,
    ciphertextBlob: ownBytes(),
    algorithm: openEnum(encryptionAlgorithms),
    iv: ownBytes().exactOptional(),
    paddingMode: openEnum(paddingModes).exactOptional(),
  }),
);

export interface DecryptParams {
  keyId: string;
  ciphertextBlob: Uint8Array;
  /** Default: the first of the key's encryptionAlgorithms. */
  algorithm?: EncryptionAlgorithm;
  /** As encrypt answered it. */
  iv?: Uint8Array;
  aad?: Uint8Array;
  paddingMode?: PaddingMode;
  /** Any version of the key; default: the initial one. */
  keyVersionId?: string;
}
export const decryptParams = schemaOf<DecryptParams>()(
  z.strictObject({
    keyId: keyReference(),
    ciphertextBlob: blob(),
    algorithm: algorithm(),
    iv: iv(),
    aad: aad(),
    paddingMode: padding(),
    keyVersionId: versionRef(),
  }),
);

export interface DecryptResult extends KeyVersionRef {
  plaintext: Uint8Array<ArrayBuffer>;
  algorithm: EncryptionAlgorithm;
  paddingMode?: PaddingMode;
}
export const decryptResult = schemaOf<DecryptResult>()(
  z.object({ ...versionFields, plaintext: ownBytes(), algorithm: openEnum(encryptionAlgorithms), paddingMode: openEnum(paddingModes).exactOptional() }),
);

export interface AdvanceEncryptParams {
  /** Key id or alias of a symmetric key; the caller's default key if absent. */
  keyId?: string;
  plaintext: Uint8Array;
  aad?: Uint8Array;
}
export const advanceEncryptParams = schemaOf<AdvanceEncryptParams>()(z.strictObject({ keyId: keyRef(), plaintext: plaintext(), aad: aad() }));

export interface AdvanceEncryptResult extends KeyVersionRef {
  /** Advance blob, format 1: names the key version and carries IV and tag. */
  ciphertextBlob: Uint8Array<ArrayBuffer>;
  algorithm: EncryptionAlgorithm;
}
export const advanceEncryptResult = schemaOf<AdvanceEncryptResult>()(
  z.object({ ...versionFields, ciphertextBlob: ownBytes(), algorithm: openEnum(encryptionAlgorithms) }),
);

export interface AdvanceDecryptParams {
  /** An advance blob; a raw one needs keyId, and iv or an algorithm other than AES_GCM. */
  ciphertextBlob: Uint8Array;
  aad?: Uint8Array;
  /** Of an advance blob the expected key; a mismatch is ERR_INVALID_CIPHERTEXT. */
  keyId?: string;
  /** Of an advance blob the expected version; a mismatch is ERR_INVALID_CIPHERTEXT. */
  keyVersionId?: string;
  algorithm?: EncryptionAlgorithm;
  iv?: Uint8Array;
  paddingMode?: PaddingMode;
}
export const advanceDecryptParams = schemaOf<AdvanceDecryptParams>()(
  z.strictObject({ ciphertextBlob: blob(), aad: aad(), keyId: keyRef(), keyVersionId: versionRef(), algorithm: algorithm(), iv: iv(), paddingMode: padding() }),
);

export interface AdvanceDecryptResult extends KeyVersionRef {
  plaintext: Uint8Array<ArrayBuffer>;
  algorithm: EncryptionAlgorithm;
}
export const advanceDecryptResult = schemaOf<AdvanceDecryptResult>()(
  z.object({ ...versionFields, plaintext: ownBytes(), algorithm: openEnum(encryptionAlgorithms) }),
);

export interface GenerateDataKeyParams {
  /** Key id or alias of a symmetric key; the caller's default key if absent. */
  keyId?: string;
  /** 1 to 1024, default 32. Not together with dataKeySpec. */
  numberOfBytes?: number;
  /** 32 or 16 bytes. Not together with numberOfBytes. */
  dataKeySpec?: 'AES_256' | 'AES_128';
  aad?: Uint8Array;
}
const dataKeySpec = () =>
  z.codec(z.enum(['AES_256', 'AES_128', 'Aliyun_AES_256', 'Aliyun_AES_128']), z.enum(['AES_256', 'AES_128']), {
    decode: (name) => (name.endsWith('AES_256') ? 'AES_256' : 'AES_128'),
    encode: (spec) => spec,
  });
export const generateDataKeyParams = schemaOf<GenerateDataKeyParams>()(
  z
    .strictObject({
      keyId: keyRef(),
      numberOfBytes: z.int().min(1).max(1024).exactOptional(),
      dataKeySpec: dataKeySpec().exactOptional(),
      aad: aad(),
    })
    .refine((value) => value.numberOfBytes === undefined || value.dataKeySpec === undefined, {
      path: ['dataKeySpec'],
      message: 'must not be given together with numberOfBytes',
    }),
);

export interface GenerateDataKeyResult extends KeyVersionRef {
  /** The data key itself: use it, then zero it. */
  plaintext: Uint8Array<ArrayBuffer>;
  /** The data key, encrypted raw under the initial version. */
  ciphertextBlob: Uint8Array<ArrayBuffer>;
  iv: Uint8Array<ArrayBuffer>;
  algorithm: EncryptionAlgorithm;
}
export const generateDataKeyResult = schemaOf<GenerateDataKeyResult>()(
  z.object({ ...versionFields, plaintext: ownBytes(), ciphertextBlob: ownBytes(), iv: ownBytes(), algorithm: openEnum(encryptionAlgorithms) }),
);

export interface AdvanceGenerateDataKeyResult extends KeyVersionRef {
  /** The data key itself: use it, then zero it. */
  plaintext: Uint8Array<ArrayBuffer>;
  /** The data key as an advance blob under the primary version. */
  ciphertextBlob: Uint8Array<ArrayBuffer>;
  algorithm: EncryptionAlgorithm;
}
export const advanceGenerateDataKeyResult = schemaOf<AdvanceGenerateDataKeyResult>()(
  z.object({ ...versionFields, plaintext: ownBytes(), ciphertextBlob: ownBytes(), algorithm: openEnum(encryptionAlgorithms) }),
);

export interface ReEncryptParams {
  ciphertextBlob: Uint8Array;
  aad?: Uint8Array;
  /** The source key; required for a raw blob. */
  keyId?: string;
  algorithm?: EncryptionAlgorithm;
  iv?: Uint8Array;
  paddingMode?: PaddingMode;
  /** Key id or alias of a symmetric key. */
  destinationKeyId: string;
  /** Of the new blob; absent means none: aad is never carried over. */
  destinationAad?: Uint8Array;
}
export const reEncryptParams = schemaOf<ReEncryptParams>()(
  z.strictObject({
    ciphertextBlob: blob(),
    aad: aad(),
    keyId: keyRef(),
    algorithm: algorithm(),
    iv: iv(),
    paddingMode: padding(),
    destinationKeyId: keyReference(),
    destinationAad: aad(),
  }),
);

export interface ReEncryptResult extends KeyVersionRef {
  sourceKeyId: string;
  sourceKeyVersionId: string;
  /** Advance blob under the destination key's primary version. */
  ciphertextBlob: Uint8Array<ArrayBuffer>;
  algorithm: EncryptionAlgorithm;
}
export const reEncryptResult = schemaOf<ReEncryptResult>()(
  z.object({
    ...versionFields,
    sourceKeyId: z.string(),
    sourceKeyVersionId: z.string(),
    ciphertextBlob: ownBytes(),
    algorithm: openEnum(encryptionAlgorithms),
  }),
);

export interface SignParams {
  keyId: string;
  /** 1 to 65,536 bytes; with messageType DIGEST exactly the 32-byte SHA-256 of the message. */
  message: Uint8Array;
  /** Default RAW: the agent hashes. */
  messageType?: MessageType;
  /** Default: the first of the key's signingAlgorithms. */
  algorithm?: SigningAlgorithm;
  /** EC only; default DER. */
  signatureFormat?: SignatureFormat;
  /** Default: the primary version. */
  keyVersionId?: string;
}
const signFields = {
  keyId: keyReference(),
  message: plaintext(),
  messageType: z.enum(messageTypes).exactOptional(),
  algorithm: z.enum(signingAlgorithms).exactOptional(),
  signatureFormat: z.enum(signatureFormats).exactOptional(),
  keyVersionId: versionRef(),
};
const digestFits = (value: { message: Uint8Array; messageType?: MessageType }): boolean => value.messageType !== 'DIGEST' || value.message.length === 32;
const digestError = { path: ['message'], message: 'must be exactly 32 bytes with messageType DIGEST' };
export const signParams = schemaOf<SignParams>()(z.strictObject(signFields).refine(digestFits, digestError));

export interface SignResult extends KeyVersionRef {
  /** ASN.1 DER (RFC 3279 section 2.2.3) or r ‖ s for ECDSA; k bytes for RSA. */
  signature: Uint8Array<ArrayBuffer>;
  algorithm: SigningAlgorithm;
  messageType: MessageType;
  /** EC only. */
  signatureFormat?: SignatureFormat;
}
const signedFields = {
  algorithm: openEnum(signingAlgorithms),
  messageType: openEnum(messageTypes),
  signatureFormat: openEnum(signatureFormats).exactOptional(),
};
export const signResult = schemaOf<SignResult>()(z.object({ ...versionFields, signature: ownBytes(), ...signedFields }));

export interface VerifyParams extends SignParams {
  /** At most 8192 bytes; what is not a signature at all is simply not valid. */
  signature: Uint8Array;
  /** Default: the 32 newest versions are tried, newest first. */
  keyVersionId?: string;
}
export const verifyParams = schemaOf<VerifyParams>()(z.strictObject({ ...signFields, signature: bytes({ max: 8192 }) }).refine(digestFits, digestError));

export interface VerifyResult {
  keyId: string;
  /** The version that the signature is of, or that was asked for; absent when not valid and none was asked. */
  keyVersionId?: string;
  valid: boolean;
  algorithm: SigningAlgorithm;
  messageType: MessageType;
  /** EC only. */
  signatureFormat?: SignatureFormat;
}
export const verifyResult = schemaOf<VerifyResult>()(
  z.object({ keyId: z.string(), keyVersionId: z.string().exactOptional(), valid: z.boolean(), ...signedFields }),
);

export interface GetPublicKeyParams {
  keyId: string;
  /** Default: the version that sign, or encrypt for an ENCRYPT_DECRYPT key, would use. */
  keyVersionId?: string;
}
export const getPublicKeyParams = schemaOf<GetPublicKeyParams>()(z.strictObject({ keyId: keyReference(), keyVersionId: versionRef() }));

export interface GetPublicKeyResult extends KeyVersionRef {
  /** SubjectPublicKeyInfo as PEM (RFC 7468 section 13). */
  publicKey: string;
  keySpec: KeySpec;
  keyUsage: KeyUsage;
}
export const getPublicKeyResult = schemaOf<GetPublicKeyResult>()(
  z.object({ ...versionFields, publicKey: z.string(), keySpec: openEnum(keySpecs), keyUsage: openEnum(keyUsages) }),
);

export interface GenerateRandomParams {
  /** 1 to 1024. */
  numberOfBytes: number;
}
export const generateRandomParams = schemaOf<GenerateRandomParams>()(z.strictObject({ numberOfBytes: z.int().min(1).max(1024) }));

export interface GenerateRandomResult {
  random: Uint8Array<ArrayBuffer>;
}
export const generateRandomResult = schemaOf<GenerateRandomResult>()(z.object({ random: ownBytes() }));

/** AdvanceGenerateDataKey without the plaintext. */
export type GenerateDataKeyWithoutPlaintextResult = AdvanceEncryptResult;
