import type { KeyPolicy, KeySpec, KeyUsage, Origin, ProtectionLevel } from '@kms-agent/protocol';
import { AgentError } from '@kms-agent/protocol';
import type { Abilities, MaterialRef } from '../providers/provider.ts';
import { clockToleranceMs } from './clock.ts';
import type { StoredState } from './state.ts';

/** Most versions that a key may have. */
export const maxKeyVersions = 1000;

/** One version: immutable material, and how often it encrypted. */
export interface KeyVersionEntry extends MaterialRef {
  readonly creationTime: number;
  /** Messages encrypted with AES; never more than `reservedUses`. */
  useCount: number;
  /** Uses that the vault already counts, so that a crash can only over-count. */
  reservedUses: number;
  /** How often the vault had been restored when the version was made; the counts of one from before the last time are not known. */
  readonly restores: number;
}

/** Automatic rotation, on or off. */
export interface RotationPolicy {
  readonly enabled: boolean;
  readonly intervalMs?: number;
}

/** For how long a key can be used after an unlock. */
export interface KeyLifetime {
  readonly seconds: number;
  /** What the material of its versions is sealed under, boxed for the root key; empty for a key in a token. */
  readonly boxedKey: Uint8Array;
}

/** When a key was last used; written lazily, and shared by all copies of a key. */
export interface Usage {
  lastUsedTime: number;
  writtenTime: number;
}

/** How often a statement of a policy let an operation through, and how many of that the vault counts already. Shared by all copies of a key. */
export interface StatementUse {
  used: number;
  reserved: number;
}

/** A key with all its versions, oldest first. Times are milliseconds since the epoch. */
export interface Key {
  readonly keyId: string;
  readonly defaultKind?: 'CMK' | 'SERVICE';
  /** The unit that a service key belongs to. */
  readonly service?: string;
  readonly keySpec: KeySpec;
  readonly keyUsage: KeyUsage;
  readonly protectionLevel: ProtectionLevel;
  readonly origin: Origin;
  /** Name of the provider that holds the material. */
  readonly provider: string;
  /** What the token was seen to do when the key was made; a software key has what its provider offers. */
  readonly abilities?: Abilities;
  readonly creator: string;
  readonly creationTime: number;
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly disabled: boolean;
  /** Present while the key is scheduled for deletion: when the window ends, as the wall clock tells it. What decides is windowEnd. */
  readonly deletionTime?: number;
  /** Where the window ends on the count of running time. Absent from records of before that was counted. */
  readonly windowEnd?: number;
  readonly deletionProtection: { readonly enabled: boolean; readonly description?: string };
  readonly rotation: RotationPolicy;
  /** Absent for a key that can be used as long as the agent is unlocked. */
  readonly lifetime?: KeyLifetime;
  readonly lastRotationTime: number;
  readonly materialExpireTime?: number;
  /** Check value of the imported material, base64: only the same may be imported again. That of a key in a token is its provider's. */
  readonly checkValue?: string;
  /** What the check value was made with, base64. Absent where that is a key derived from the root key, as the first ones were. */
  readonly checkSalt?: string;
  readonly primaryKeyVersionId: string;
  /** The version of a key without material has an empty one; with a lifetime, in software, it is sealed. */
  readonly versions: readonly KeyVersionEntry[];
  readonly usage: Usage;
  /** Who may do what, users and groups by number; undefined for the default. One object for as long as the policy is the same. */
  readonly policy?: KeyPolicy;
  /** By the place of the statement; there where one has a total. */
  readonly policyUses?: readonly StatementUse[];
}

/** The stored part of a key's state at a time. */
export function storedStateOf(key: Key, isExpired: boolean): StoredState {
  const hasMaterial = !isExpired && (key.origin === 'GENERATED' || initialVersion(key).material.length > 0);
  return { disabled: key.disabled, pendingDeletion: key.deletionTime !== undefined, hasMaterial };
}

/** When time alone changes the key next: rotation, destruction or expiry. Undefined for never. Its state may still suspend that. */
export function dueTimeOf(key: Key): number | undefined {
  const times = [key.deletionTime, key.materialExpireTime, nextRotationTime(key)].filter((time) => time !== undefined);
  return times.length === 0 ? undefined : Math.min(...times);
}

/** When the key rotates next; undefined when it does not, or cannot now. */
export function nextRotationTime(key: Key): number | undefined {
  const { rotation, lastRotationTime, versions } = key;
  if (!rotation.enabled || rotation.intervalMs === undefined || versions.length >= maxKeyVersions) return undefined;
  return lastRotationTime + rotation.intervalMs;
}

/** The key without a last rotation that a wrong clock has put into the future: nothing would be due until then. The same object where there is none. */
export function withoutFutureRotation(key: Key, now: number): Key {
  return key.lastRotationTime > now + clockToleranceMs ? { ...key, lastRotationTime: now } : key;
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

/** Messages that all versions together encrypted. */
export const countUses = (key: Key): number => key.versions.reduce((sum, version) => sum + version.useCount, 0);

/** Whether the use count of a version is right: not after the vault was put back from a backup. */
export function isCountKnown(version: KeyVersionEntry, restores: number): boolean {
  return version.restores === restores;
}

/** The key with a policy whose counts begin at nothing. */
export function withPolicy(key: Key, policy: KeyPolicy): Key {
  const { policyUses: _, ...rest } = key;
  const hasTotals = policy.statements.some(({ limits }) => limits?.total !== undefined);
  return { ...rest, policy, ...(hasTotals ? { policyUses: policy.statements.map(() => ({ used: 0, reserved: 0 })) } : {}) };
}

/** Overwrites the material of every version; the key is of no more use. */
export function wipeKey(key: Key): void {
  for (const version of key.versions) version.material.fill(0);
}
