import { AgentError, isAgentError } from '@kms-agent/protocol';
import { dueTimeOf, type Key, type KeyLifetime } from './key.ts';

/*
 * The sealed form of a key, integers big-endian:
 *   u8 format 1, or 2 with a lifetime ‖ 1 bit: lives in a token ‖ u47 time at which the key changes by itself, 0 for never ‖ u16 number of versions ‖ 16 bytes a version id, oldest first ‖ in format 2: u32 seconds ‖ u8 length ‖ boxed key ‖ u32 length ‖ JSON of the rest ‖ material and public key of each version.
 * What stands before the JSON is all that an unlock reads, so that a key costs its parsing when somebody asks for it. Material is bytes, never text.
 */

/** Values that are left out of the JSON, because most of very many keys have most of them. They belong to format 1 and never change. */
const usual = Object.freeze({
  keySpec: 'AES_256',
  keyUsage: 'ENCRYPT_DECRYPT',
  protectionLevel: 'SOFTWARE',
  origin: 'GENERATED',
  provider: 'software',
  description: '',
  tags: Object.freeze({}),
  disabled: false,
  deletionProtection: Object.freeze({ enabled: false }),
  rotation: Object.freeze({ enabled: false }),
  lastUsedTime: 0,
  primary: 0,
});

/** Of each version: creation time, uses that are counted, restores, bytes of material, bytes of public key. */
type VersionHeader = readonly [creationTime: number, uses: number, restores: number, materialBytes: number, publicKeyBytes: number];

/** The fields that stand in the JSON of the sealed record. */
type KeyHeader = Omit<Key, 'keyId' | 'primaryKeyVersionId' | 'versions' | 'usage' | 'policyUses' | 'lifetime'> & {
  readonly primary: number;
  readonly lastUsedTime: number;
  readonly policyUses?: readonly number[];
  readonly versions: readonly VersionHeader[];
};

const formatOfRecord = 1;
/** An agent that knows nothing of lifetimes must not take what is sealed for material. */
const formatWithLifetime = 2;
const lifetimeBytes = 5;
/** The highest of the 48 bits, which no time reaches. */
const inTokenBit = 2 ** 47;
const idBytes = 16;
const fixedBytes = 9;

const damaged = (reason: string): AgentError => new AgentError('ERR_INTERNAL', {}, { cause: new RangeError(`a key record ${reason}`) });

/** What a parser says of a record that is none would hold some of it. @throws AgentError `ERR_INTERNAL`. */
function orDamaged<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw isAgentError(error) ? error : damaged('cannot be read');
  }
}

function encodeHeader(key: Key): Buffer {
  const { keyId: _keyId, versions, usage, primaryKeyVersionId, policyUses, lifetime: _lifetime, ...rest } = key;
  const header: KeyHeader = {
    ...rest,
    primary: versions.findIndex(({ keyVersionId }) => keyVersionId === primaryKeyVersionId),
    lastUsedTime: usage.lastUsedTime,
    ...(policyUses ? { policyUses: policyUses.map(({ reserved }) => reserved) } : {}),
    versions: versions.map(({ creationTime, reservedUses, restores, material, publicKey }) => [
      creationTime,
      reservedUses,
      restores,
      material.length,
      publicKey?.length ?? 0,
    ]),
  };
  const isUnusual = ([name, value]: [string, unknown]): boolean => JSON.stringify(value) !== JSON.stringify((usual as Record<string, unknown>)[name]); // undefined where there is no usual value
  return Buffer.from(JSON.stringify(Object.fromEntries(Object.entries(header).filter(isUnusual))));
}

function encodeLifetime({ seconds, boxedKey }: KeyLifetime): Uint8Array {
  const encoded = Buffer.alloc(lifetimeBytes + boxedKey.length);
  encoded.writeUInt32BE(seconds, 0);
  encoded.writeUInt8(boxedKey.length, 4);
  encoded.set(boxedKey, lifetimeBytes);
  return encoded;
}

/** Writes a key in its sealed form. */
export function encodeKey(key: Key): Uint8Array {
  const { versions, lifetime } = key;
  const life = lifetime ? encodeLifetime(lifetime) : new Uint8Array();
  const json = encodeHeader(key);
  const parts = versions.flatMap(({ material, publicKey }) => (publicKey ? [material, publicKey] : [material]));
  const record = Buffer.alloc(parts.reduce((sum, part) => sum + part.length, fixedBytes + versions.length * idBytes + life.length + 4 + json.length));
  record.writeUInt8(lifetime ? formatWithLifetime : formatOfRecord, 0);
  record.writeUIntBE((dueTimeOf(key) ?? 0) + (key.protectionLevel === 'HSM' ? inTokenBit : 0), 1, 6);
  record.writeUInt16BE(versions.length, 7);
  let offset = fixedBytes;
  for (const { keyVersionId } of versions) offset += record.write(keyVersionId.replaceAll('-', ''), offset, 'hex');
  record.set(life, offset);
  offset = record.writeUInt32BE(json.length, offset + life.length);
  for (const part of [json, ...parts]) {
    record.set(part, offset);
    offset += part.length;
  }
  return record;
}

const formatId = (hex: string): string => `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;

const view = (record: Uint8Array): Buffer => Buffer.from(record.buffer, record.byteOffset, record.byteLength);

/** What an unlock reads of a record: its version ids, when time alone changes the key, and for how long it can be used. */
export interface KeyIndex {
  readonly keyVersionIds: readonly string[];
  readonly dueTime: number | undefined;
  readonly isInToken: boolean;
  /** A part of the record, not a copy. */
  readonly lifetime?: KeyLifetime;
}

/** @throws AgentError `ERR_INTERNAL` for what encodeKey did not write. */
export function readIndex(record: Uint8Array): KeyIndex {
  const bytes = view(record);
  if (bytes.length < fixedBytes) throw damaged('is too short');
  if (bytes[0] !== formatOfRecord && bytes[0] !== formatWithLifetime) throw damaged(`has format ${bytes[0]}`);
  const count = bytes.readUInt16BE(7);
  if (bytes.length < fixedBytes + count * idBytes) throw damaged('has no room for its ids');
  const keyVersionIds = Array.from({ length: count }, (_, index) =>
    formatId(bytes.toString('hex', fixedBytes + index * idBytes, fixedBytes + (index + 1) * idBytes)),
  );
  const time = bytes.readUIntBE(1, 6);
  const lifetime = bytes[0] === formatWithLifetime ? { lifetime: readLifetime(bytes.subarray(fixedBytes + count * idBytes)) } : {};
  return { keyVersionIds, dueTime: time % inTokenBit || undefined, isInToken: time >= inTokenBit, ...lifetime };
}

function readLifetime(bytes: Buffer): KeyLifetime {
  const end = lifetimeBytes + (bytes[lifetimeBytes - 1] ?? 0);
  if (bytes.length < end) throw damaged('has no room for its lifetime');
  return { seconds: bytes.readUInt32BE(0), boxedKey: bytes.subarray(lifetimeBytes, end) };
}

/** The box in the record of a key that has one: a part of it, not a copy. @throws AgentError `ERR_INTERNAL` as readIndex. */
export function findBoxedKey(record: Uint8Array): Uint8Array | undefined {
  const boxedKey = readIndex(record).lifetime?.boxedKey;
  return boxedKey && boxedKey.length > 0 ? boxedKey : undefined;
}

/** Reads a sealed form that encodeKey wrote. Material stays where it is: `record` belongs to the key from now on. @throws AgentError `ERR_INTERNAL` for any other. */
export function decodeKey(keyId: string, record: Uint8Array): Key {
  return orDamaged(() => readKey(keyId, record));
}

function readKey(keyId: string, record: Uint8Array): Key {
  const { keyVersionIds, lifetime } = readIndex(record);
  const bytes = view(record);
  const headerStart = fixedBytes + keyVersionIds.length * idBytes + (lifetime ? lifetimeBytes + lifetime.boxedKey.length : 0) + 4;
  let offset = headerStart + bytes.readUInt32BE(headerStart - 4);
  const parsed = JSON.parse(bytes.toString('utf8', headerStart, offset)) as Partial<KeyHeader>; // authenticated: only encodeKey writes it
  const { versions, lastUsedTime, primary, policyUses, ...rest } = { ...usual, ...parsed } as KeyHeader; // what was left out is usual
  if (versions.length !== keyVersionIds.length) throw damaged('has not as many versions as ids');
  const take = (length: number): Uint8Array => {
    if (offset + length > record.length) throw damaged('is shorter than it says');
    offset += length;
    return record.subarray(offset - length, offset);
  };
  const entries = versions.map(([creationTime, uses, restores, materialBytes, publicKeyBytes], index) => {
    const keyVersionId = keyVersionIds[index] ?? '';
    const entry = { keyVersionId, creationTime, restores, keySpec: rest.keySpec, material: take(materialBytes), useCount: uses, reservedUses: uses };
    return publicKeyBytes > 0 ? { ...entry, publicKey: take(publicKeyBytes) } : entry;
  });
  const primaryKeyVersionId = keyVersionIds[primary];
  if (primaryKeyVersionId === undefined) throw damaged('names a primary version that it has not');
  const uses = policyUses ? { policyUses: policyUses.map((used) => ({ used, reserved: used })) } : {};
  return {
    ...rest,
    ...uses,
    ...(lifetime ? { lifetime } : {}),
    keyId,
    primaryKeyVersionId,
    versions: entries,
    usage: { lastUsedTime, writtenTime: lastUsedTime },
  };
}
