import type { KeySpec, KeyUsage, Origin, ProtectionLevel } from '@kms-agent/protocol';
import { AgentError } from '@kms-agent/protocol';
import type { MaterialRef } from '../providers/provider.ts';

/** One version: immutable material, and how often it encrypted. */
export interface KeyVersionEntry extends MaterialRef {
  readonly creationTime: number;
  /** Messages encrypted; never more than `reservedUses`. */
  useCount: number;
  /** Uses that the vault already counts, so that a crash can only over-count. */
  reservedUses: number;
  /** SPKI DER of an asymmetric version. */
  readonly publicKey?: Uint8Array;
}

/** A key with all its versions, oldest first. Times are milliseconds since the epoch. */
export interface Key {
  readonly keyId: string;
  readonly defaultKind?: 'CMK' | 'SERVICE';
  readonly keySpec: KeySpec;
  readonly keyUsage: KeyUsage;
  readonly protectionLevel: ProtectionLevel;
  readonly origin: Origin;
  /** Name of the provider that holds the material. */
  readonly provider: string;
  readonly creator: string;
  readonly creationTime: number;
  description: string;
  tags: Record<string, string>;
  deletionProtection: boolean;
  primaryKeyVersionId: string;
  versions: readonly KeyVersionEntry[];
}

/** The fields that stand in clear inside the sealed record; material follows it as bytes, never as text. */
type KeyHeader = Omit<Key, 'versions'> & {
  versions: { keyVersionId: string; creationTime: number; uses: number; materialBytes: number; publicKeyBytes: number }[];
};

const lengthBytes = 4;

/** Sealed form of a key: u32 length ‖ JSON of everything but material ‖ material and public key of each version, oldest first. */
export function encodeKey(key: Key): Uint8Array {
  const { versions, ...rest } = key;
  const header: KeyHeader = {
    ...rest,
    versions: versions.map(({ keyVersionId, creationTime, reservedUses, material, publicKey }) => ({
      keyVersionId,
      creationTime,
      uses: reservedUses,
      materialBytes: material.length,
      publicKeyBytes: publicKey?.length ?? 0,
    })),
  };
  const json = Buffer.from(JSON.stringify(header));
  const parts = versions.flatMap(({ material, publicKey }) => (publicKey ? [material, publicKey] : [material]));
  const record = Buffer.alloc(parts.reduce((sum, part) => sum + part.length, lengthBytes + json.length));
  record.writeUInt32BE(json.length);
  json.copy(record, lengthBytes);
  let offset = lengthBytes + json.length;
  for (const part of parts) {
    record.set(part, offset);
    offset += part.length;
  }
  return record;
}

/** Reads a sealed form that encodeKey wrote. Material is copied, so that the caller may zero `record`. */
export function decodeKey(record: Uint8Array): Key {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const headerEnd = lengthBytes + bytes.readUInt32BE();
  const { versions, ...rest } = JSON.parse(bytes.toString('utf8', lengthBytes, headerEnd)) as KeyHeader; // authenticated: only encodeKey writes it
  let offset = headerEnd;
  const take = (length: number): Uint8Array => {
    if (offset + length > bytes.length) throw new AgentError('ERR_INTERNAL', {}, { cause: new RangeError('a key record is shorter than it says') });
    const part = new Uint8Array(bytes.subarray(offset, offset + length));
    offset += length;
    return part;
  };
  const entries = versions.map(({ keyVersionId, creationTime, uses, materialBytes, publicKeyBytes }) => {
    const entry = { keyVersionId, creationTime, keySpec: rest.keySpec, material: take(materialBytes), useCount: uses, reservedUses: uses };
    return publicKeyBytes > 0 ? { ...entry, publicKey: take(publicKeyBytes) } : entry;
  });
  return { ...rest, versions: entries };
}

/** The version that raw operations use: the first one for ever. */
export function initialVersion(key: Key): KeyVersionEntry {
  const [first] = key.versions;
  if (!first) throw new AgentError('ERR_INTERNAL', {}, { cause: new RangeError(`key ${key.keyId} has no version`) });
  return first;
}

/** A version of the key by its id. @throws AgentError `ERR_KEY_VERSION_NOT_FOUND`. */
export function findVersion(key: Key, keyVersionId: string): KeyVersionEntry {
  const found = key.versions.find((version) => version.keyVersionId === keyVersionId);
  if (!found) throw new AgentError('ERR_KEY_VERSION_NOT_FOUND');
  return found;
}

/** The version that advance operations and sign use. */
export function primaryVersion(key: Key): KeyVersionEntry {
  return findVersion(key, key.primaryKeyVersionId);
}

/** Overwrites the material of every version; the key is of no more use. */
export function wipeKey(key: Key): void {
  for (const version of key.versions) version.material.fill(0);
}
