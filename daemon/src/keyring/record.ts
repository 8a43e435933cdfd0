import { AgentError } from '@kms-agent/protocol';
import { dueTimeOf, type Key } from './key.ts';

/*
 * The sealed form of a key, integers big-endian:
 *   u8 format 1 ‖ u48 time at which the key changes by itself, 0 for never ‖ u16 number of versions ‖ 16 bytes a version id, oldest first ‖ u32 length ‖ JSON of the rest ‖ material and public key of each version.
 * What stands before the JSON is all that an unlock reads, so that a key costs its parsing when somebody asks for it. Material is bytes, never text.
 */

/** The fields that stand in the JSON of the sealed record. */
type KeyHeader = Omit<Key, 'versions' | 'usage'> & {
  versions: { creationTime: number; uses: number; restores: number; materialBytes: number; publicKeyBytes: number }[];
  lastUsedTime: number;
};

const formatOfRecord = 1;
const idBytes = 16;
const fixedBytes = 9;

const damaged = (reason: string): AgentError => new AgentError('ERR_INTERNAL', {}, { cause: new RangeError(`a key record ${reason}`) });

/** Writes a key in its sealed form. */
export function encodeKey(key: Key): Uint8Array {
  const { versions, usage, ...rest } = key;
  const header: KeyHeader = {
    ...rest,
    lastUsedTime: usage.lastUsedTime,
    versions: versions.map(({ creationTime, reservedUses, restores, material, publicKey }) => ({
      creationTime,
      uses: reservedUses,
      restores,
      materialBytes: material.length,
      publicKeyBytes: publicKey?.length ?? 0,
    })),
  };
  const json = Buffer.from(JSON.stringify(header));
  const parts = versions.flatMap(({ material, publicKey }) => (publicKey ? [material, publicKey] : [material]));
  const record = Buffer.alloc(parts.reduce((sum, part) => sum + part.length, fixedBytes + versions.length * idBytes + 4 + json.length));
  record.writeUInt8(formatOfRecord, 0);
  record.writeUIntBE(dueTimeOf(key) ?? 0, 1, 6);
  record.writeUInt16BE(versions.length, 7);
  let offset = fixedBytes;
  for (const { keyVersionId } of versions) offset += record.write(keyVersionId.replaceAll('-', ''), offset, 'hex');
  offset = record.writeUInt32BE(json.length, offset);
  for (const part of [json, ...parts]) {
    record.set(part, offset);
    offset += part.length;
  }
  return record;
}

const formatId = (hex: string): string => `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;

const view = (record: Uint8Array): Buffer => Buffer.from(record.buffer, record.byteOffset, record.byteLength);

/** What an unlock reads of a record: its version ids, and when time alone changes the key. */
export interface KeyIndex {
  readonly keyVersionIds: readonly string[];
  readonly dueTime: number | undefined;
}

export function readIndex(record: Uint8Array): KeyIndex {
  const bytes = view(record);
  if (bytes[0] !== formatOfRecord) throw damaged(`has format ${bytes[0]}`);
  const count = bytes.readUInt16BE(7);
  const keyVersionIds = Array.from({ length: count }, (_, index) =>
    formatId(bytes.toString('hex', fixedBytes + index * idBytes, fixedBytes + (index + 1) * idBytes)),
  );
  return { keyVersionIds, dueTime: bytes.readUIntBE(1, 6) || undefined };
}

/** Reads a sealed form that encodeKey wrote. Material stays where it is: `record` belongs to the key from now on. */
export function decodeKey(record: Uint8Array): Key {
  const { keyVersionIds } = readIndex(record);
  const bytes = view(record);
  const headerStart = fixedBytes + keyVersionIds.length * idBytes + 4;
  let offset = headerStart + bytes.readUInt32BE(headerStart - 4);
  const { versions, lastUsedTime, ...rest } = JSON.parse(bytes.toString('utf8', headerStart, offset)) as KeyHeader; // authenticated: only encodeKey writes it
  const take = (length: number): Uint8Array => {
    if (offset + length > record.length) throw damaged('is shorter than it says');
    offset += length;
    return record.subarray(offset - length, offset);
  };
  const entries = versions.map(({ creationTime, uses, restores, materialBytes, publicKeyBytes }, index) => {
    const keyVersionId = keyVersionIds[index];
    if (keyVersionId === undefined) throw damaged('has more versions than ids');
    const entry = { keyVersionId, creationTime, restores, keySpec: rest.keySpec, material: take(materialBytes), useCount: uses, reservedUses: uses };
    return publicKeyBytes > 0 ? { ...entry, publicKey: take(publicKeyBytes) } : entry;
  });
  return { ...rest, versions: entries, usage: { lastUsedTime, writtenTime: lastUsedTime } };
}
