import { z } from 'zod';
import type { ImportWrappingAlgorithm, ImportWrappingKeySpec } from '../names.ts';
import { importWrappingAlgorithms, importWrappingKeySpecs } from '../names.ts';
import { bytes, duration, keyReference, openEnum, ownBytes, schemaOf, tagName, tags, text, timestamp, timestampParam, uuid } from '../schema.ts';
import { type KeyMetadata, keyMetadata } from './keys.ts';

/** What acts on a key by its id alone: an alias may have been moved since the caller looked. */
export interface OnlyKeyIdParams {
  /** The id, not an alias. */
  keyId: string;
}
export const onlyKeyIdParams = schemaOf<OnlyKeyIdParams>()(z.strictObject({ keyId: uuid() }));

export interface ScheduleKeyDeletionParams {
  /** The id, not an alias. */
  keyId: string;
  /** 7 to 366, default 30. */
  pendingWindowInDays?: number;
}
export const scheduleKeyDeletionParams = schemaOf<ScheduleKeyDeletionParams>()(
  z.strictObject({ keyId: uuid(), pendingWindowInDays: z.int().min(7).max(366).exactOptional() }),
);

export interface SetDeletionProtectionParams {
  /** The id, not an alias. */
  keyId: string;
  enabled: boolean;
  /** Why, at most 8192 bytes. */
  description?: string;
}
export const setDeletionProtectionParams = schemaOf<SetDeletionProtectionParams>()(
  z.strictObject({ keyId: uuid(), enabled: z.boolean(), description: text({ max: 8192 }).exactOptional() }),
);

export interface TagKeyParams {
  keyId: string;
  /** Added to those the key has; a name that it has gets the new value. At most 50 in all. */
  tags: Record<string, string>;
}
export const tagKeyParams = schemaOf<TagKeyParams>()(z.strictObject({ keyId: keyReference(), tags: tags() }));

export interface UntagKeyParams {
  keyId: string;
  /** Names to remove; one that the key has not is no error. */
  tagKeys: string[];
}
export const untagKeyParams = schemaOf<UntagKeyParams>()(z.strictObject({ keyId: keyReference(), tagKeys: z.array(tagName()).min(1).max(50) }));

export interface UpdateRotationPolicyParams {
  keyId: string;
  enabled: boolean;
  /** 7d to 730d; needed the first time that rotation is turned on. */
  rotationInterval?: string;
}
export const updateRotationPolicyParams = schemaOf<UpdateRotationPolicyParams>()(
  z.strictObject({ keyId: keyReference(), enabled: z.boolean(), rotationInterval: duration('7d', '730d').exactOptional() }),
);

export interface GetParametersForImportParams {
  keyId: string;
  /** Default RSA_3072. */
  wrappingKeySpec?: ImportWrappingKeySpec;
  /** Default: the best that can be unwrapped where the key lives. */
  wrappingAlgorithm?: ImportWrappingAlgorithm;
}
export const getParametersForImportParams = schemaOf<GetParametersForImportParams>()(
  z.strictObject({
    keyId: keyReference(),
    wrappingKeySpec: z.enum(importWrappingKeySpecs).exactOptional(),
    wrappingAlgorithm: z.enum(importWrappingAlgorithms).exactOptional(),
  }),
);

export interface GetParametersForImportResult {
  keyId: string;
  /** Opaque; good for this key and this public key, until importTokenExpireTime. */
  importToken: Uint8Array<ArrayBuffer>;
  /** SPKI PEM: wrap the material with it. */
  publicKey: string;
  wrappingAlgorithm: ImportWrappingAlgorithm;
  importTokenExpireTime: string;
}
export const getParametersForImportResult = schemaOf<GetParametersForImportResult>()(
  z.object({
    keyId: z.string(),
    importToken: ownBytes(),
    publicKey: z.string(),
    wrappingAlgorithm: openEnum(importWrappingAlgorithms),
    importTokenExpireTime: timestamp(),
  }),
);

export interface ImportKeyMaterialParams {
  /** The id, not an alias. */
  keyId: string;
  /** The material, wrapped with the public key of getParametersForImport. */
  encryptedKeyMaterial: Uint8Array;
  importToken: Uint8Array;
  /** When the material expires; absent: never. */
  materialExpireTime?: string;
}
export const importKeyMaterialParams = schemaOf<ImportKeyMaterialParams>()(
  z.strictObject({
    keyId: uuid(),
    encryptedKeyMaterial: bytes({ min: 1, max: 16_384 }),
    importToken: bytes({ min: 1, max: 16_384 }),
    materialExpireTime: timestampParam().exactOptional(),
  }),
);

export interface ImportKeyMaterialResult {
  keyMetadata: KeyMetadata;
  /** Where the material was in clear: inside the token, or in the agent's memory. */
  unwrappedIn: 'TOKEN' | 'AGENT';
}
export const importKeyMaterialResult = schemaOf<ImportKeyMaterialResult>()(z.object({ keyMetadata, unwrappedIn: openEnum(['TOKEN', 'AGENT']) }));
