import { z } from 'zod';
import type { EncryptionAlgorithm, KeySpec, KeyState, KeyType, KeyUsage, Origin, ProtectionLevel, SigningAlgorithm } from '../names.ts';
import { encryptionAlgorithms, keySpecs, keyStates, keyTypes, keyUsages, origins, protectionLevels, signingAlgorithms } from '../names.ts';
import { aliasName, duration, keyReference, keySpecParam, openEnum, schemaOf, tags, text, timestamp, uuid } from '../schema.ts';
import { type KeyPolicy, keyPolicy } from './policy.ts';

/** What is known about a key; never its material. */
export interface KeyMetadata {
  keyId: string;
  keyType: KeyType;
  /** Of a default key: CMK, or a service's own. */
  defaultKind?: 'SERVICE' | 'CMK';
  /** The unit that a service key belongs to. */
  service?: string;
  keySpec: KeySpec;
  keyUsage: KeyUsage;
  keyState: KeyState;
  protectionLevel: ProtectionLevel;
  /** Name of the token that holds a hardware-protected key. */
  token?: string;
  origin: Origin;
  description: string;
  /** With their `alias/`, sorted. */
  aliases: string[];
  tags: Record<string, string>;
  /** Who made it, as `uid:<n>`. */
  creator: string;
  creationTime: string;
  primaryKeyVersionId: string;
  keyVersionCount: number;
  rotation: RotationStatus;
  deletionTime?: string;
  deletionProtection: DeletionProtection;
  unlockLifetime?: string;
  materialExpireTime?: string;
  /** Default first; empty for a signing key. */
  encryptionAlgorithms: EncryptionAlgorithm[];
  /** Default first; empty for an encryption key. */
  signingAlgorithms: SigningAlgorithm[];
  lastUsedTime?: string;
  useCount: number;
}

export interface RotationStatus {
  status: 'Enabled' | 'Disabled' | 'Suspended';
  rotationInterval?: string;
  /** When the newest version was made. */
  lastRotationTime: string;
  nextRotationTime?: string;
}

export interface DeletionProtection {
  enabled: boolean;
  description?: string;
}

export const keyMetadata = schemaOf<KeyMetadata>()(
  z.object({
    keyId: z.string(),
    keyType: openEnum(keyTypes),
    defaultKind: openEnum(['SERVICE', 'CMK']).exactOptional(),
    service: z.string().exactOptional(),
    keySpec: openEnum(keySpecs),
    keyUsage: openEnum(keyUsages),
    keyState: openEnum(keyStates),
    protectionLevel: openEnum(protectionLevels),
    token: z.string().exactOptional(),
    origin: openEnum(origins),
    description: z.string(),
    aliases: z.array(z.string()),
    tags: z.record(z.string(), z.string()),
    creator: z.string(),
    creationTime: timestamp(),
    primaryKeyVersionId: z.string(),
    keyVersionCount: z.int(),
    rotation: z.object({
      status: openEnum(['Enabled', 'Disabled', 'Suspended']),
      rotationInterval: z.string().exactOptional(),
      lastRotationTime: timestamp(),
      nextRotationTime: timestamp().exactOptional(),
    }),
    deletionTime: timestamp().exactOptional(),
    deletionProtection: z.object({ enabled: z.boolean(), description: z.string().exactOptional() }),
    unlockLifetime: z.string().exactOptional(),
    materialExpireTime: timestamp().exactOptional(),
    encryptionAlgorithms: z.array(openEnum(encryptionAlgorithms)),
    signingAlgorithms: z.array(openEnum(signingAlgorithms)),
    lastUsedTime: timestamp().exactOptional(),
    useCount: z.int(),
  }),
);

/** At most 64 bytes; the same token from the same uid within 24 hours answers the first result. */
const clientToken = () => text({ min: 1, max: 64 }).exactOptional();
const limit = () => z.int().min(1).max(1000).exactOptional();
const nextToken = () => text({ min: 1, max: 1024 }).exactOptional();

export interface CreateKeyParams {
  /** Default AES_256. */
  keySpec?: KeySpec;
  /** Default by spec; required for RSA. */
  keyUsage?: KeyUsage;
  /** Default SOFTWARE. */
  protectionLevel?: ProtectionLevel;
  /** Name of a token from the settings; required when there are several. */
  token?: string;
  /** Default GENERATED. */
  origin?: Origin;
  /** At most 8192 bytes. */
  description?: string;
  tags?: Record<string, string>;
  /** `alias/default` makes the CMK. */
  aliasName?: string;
  /** 7d to 730d; turns rotation on. */
  rotationInterval?: string;
  deletionProtection?: boolean;
  unlockLifetime?: string;
  policy?: KeyPolicy;
  clientToken?: string;
}
export const createKeyParams = schemaOf<CreateKeyParams>()(
  z.strictObject({
    keySpec: keySpecParam().exactOptional(),
    keyUsage: z.enum(keyUsages).exactOptional(),
    protectionLevel: z.enum(protectionLevels).exactOptional(),
    token: text({ min: 1, max: 128 }).exactOptional(),
    origin: z.enum(origins).exactOptional(),
    description: text({ max: 8192 }).exactOptional(),
    tags: tags().exactOptional(),
    aliasName: aliasName().exactOptional(),
    rotationInterval: duration('7d', '730d').exactOptional(),
    deletionProtection: z.boolean().exactOptional(),
    unlockLifetime: duration('1s', '365d').exactOptional(),
    policy: keyPolicy.exactOptional(),
    clientToken: clientToken(),
  }),
);

export interface KeyIdParams {
  /** Key id or alias. */
  keyId: string;
}
export const keyIdParams = schemaOf<KeyIdParams>()(z.strictObject({ keyId: keyReference() }));

/** AND between fields, OR inside one. */
export interface KeyFilters {
  keyState?: KeyState[];
  keySpec?: KeySpec[];
  keyUsage?: KeyUsage[];
  protectionLevel?: ProtectionLevel[];
  keyType?: KeyType[];
  origin?: Origin[];
  /** Keys with an alias that begins with one of these; with or without `alias/`. */
  aliasPrefix?: string[];
  /** Keys that have all of these tags with these values. */
  tags?: Record<string, string>;
}
const choices = <T extends z.ZodType>(of: T) => z.array(of).min(1).max(32).exactOptional();

export interface ListKeysParams {
  filters?: KeyFilters;
  /** 1 to 1000, default 100. */
  limit?: number;
  /** From the answer before; good for the same filters only. */
  nextToken?: string;
}
export const listKeysParams = schemaOf<ListKeysParams>()(
  z.strictObject({
    filters: z
      .strictObject({
        keyState: choices(z.enum(keyStates)),
        keySpec: choices(keySpecParam()),
        keyUsage: choices(z.enum(keyUsages)),
        protectionLevel: choices(z.enum(protectionLevels)),
        keyType: choices(z.enum(keyTypes)),
        origin: choices(z.enum(origins)),
        aliasPrefix: choices(text({ min: 1, max: 256 })),
        tags: tags().exactOptional(),
      })
      .exactOptional(),
    limit: limit(),
    nextToken: nextToken(),
  }),
);

export interface ListKeysResult {
  /** Sorted by keyId. */
  keys: KeyMetadata[];
  /** Present when there is more. */
  nextToken?: string;
}
export const listKeysResult = schemaOf<ListKeysResult>()(z.object({ keys: z.array(keyMetadata), nextToken: z.string().exactOptional() }));

export interface UpdateKeyDescriptionParams {
  keyId: string;
  /** At most 8192 bytes. */
  description: string;
}
export const updateKeyDescriptionParams = schemaOf<UpdateKeyDescriptionParams>()(z.strictObject({ keyId: keyReference(), description: text({ max: 8192 }) }));

export interface AliasParams {
  aliasName: string;
  /** The id, not an alias. */
  keyId: string;
}
export const aliasParams = schemaOf<AliasParams>()(z.strictObject({ aliasName: aliasName(), keyId: uuid() }));

export interface DeleteAliasParams {
  aliasName: string;
}
export const deleteAliasParams = schemaOf<DeleteAliasParams>()(z.strictObject({ aliasName: aliasName() }));

export interface Alias {
  /** With its `alias/`. */
  aliasName: string;
  keyId: string;
  creationTime: string;
  lastUpdateTime: string;
}
export const alias = schemaOf<Alias>()(z.object({ aliasName: z.string(), keyId: z.string(), creationTime: timestamp(), lastUpdateTime: timestamp() }));

export interface ListAliasesParams {
  keyId?: string;
  /** 1 to 1000, default 100. */
  limit?: number;
  nextToken?: string;
}
export const listAliasesParams = schemaOf<ListAliasesParams>()(
  z.strictObject({ keyId: keyReference().exactOptional(), limit: limit(), nextToken: nextToken() }),
);

export interface ListAliasesResult {
  /** Sorted by aliasName. */
  aliases: Alias[];
  nextToken?: string;
}
export const listAliasesResult = schemaOf<ListAliasesResult>()(z.object({ aliases: z.array(alias), nextToken: z.string().exactOptional() }));

export interface CreateKeyVersionParams {
  keyId: string;
  /** Default true: the new version is used at once. */
  setPrimary?: boolean;
  clientToken?: string;
}
export const createKeyVersionParams = schemaOf<CreateKeyVersionParams>()(
  z.strictObject({ keyId: keyReference(), setPrimary: z.boolean().exactOptional(), clientToken: clientToken() }),
);

export interface KeyVersion {
  keyId: string;
  keyVersionId: string;
  creationTime: string;
  /** Used by encrypt, decrypt and generateDataKey. */
  initial: boolean;
  /** Used by the advance operations and sign. */
  primary: boolean;
  useCount: number;
}
export const keyVersion = schemaOf<KeyVersion>()(
  z.object({
    keyId: z.string(),
    keyVersionId: z.string(),
    creationTime: timestamp(),
    initial: z.boolean(),
    primary: z.boolean(),
    useCount: z.int(),
  }),
);

export interface KeyVersionParams {
  keyId: string;
  keyVersionId: string;
}
export const keyVersionParams = schemaOf<KeyVersionParams>()(z.strictObject({ keyId: keyReference(), keyVersionId: uuid() }));

export interface ListKeyVersionsParams {
  keyId: string;
  /** 1 to 1000, default 100. */
  limit?: number;
  nextToken?: string;
}
export const listKeyVersionsParams = schemaOf<ListKeyVersionsParams>()(z.strictObject({ keyId: keyReference(), limit: limit(), nextToken: nextToken() }));

export interface ListKeyVersionsResult {
  /** Sorted by keyVersionId, which is oldest first. */
  keyVersions: KeyVersion[];
  nextToken?: string;
}
export const listKeyVersionsResult = schemaOf<ListKeyVersionsResult>()(z.object({ keyVersions: z.array(keyVersion), nextToken: z.string().exactOptional() }));
