import type { Alias, KeyFilters, KeyMetadata, KeyType, KeyVersion } from '@kms-agent/protocol';
import { AgentError } from '@kms-agent/protocol';
import type { Abilities } from '../providers/provider.ts';
import { findVersion, initialVersion, type Key } from './key.ts';
import type { AliasEntry, Keyring } from './keyring.ts';

/** RFC 3339 in UTC with milliseconds. */
const formatTime = (timeMs: number): string => new Date(timeMs).toISOString();

function keyTypeOf(key: Key): KeyType {
  if (key.defaultKind) return 'DEFAULT';
  return key.protectionLevel === 'HSM' ? 'HARDWARE' : 'SOFTWARE';
}

/**
 * What the key's provider offers for it; the first of each list is the default.
 * @throws AgentError `ERR_KEY_UNAVAILABLE` when the provider no longer knows such keys.
 */
export function abilitiesOf(keyring: Keyring, key: Key): Abilities {
  const abilities = keyring.providerOf(key).abilities(key.keySpec, key.keyUsage);
  if (!abilities) throw new AgentError('ERR_KEY_UNAVAILABLE');
  return abilities;
}

/** The key as callers see it. */
export function describeKey(keyring: Keyring, key: Key): KeyMetadata {
  const { encryptionAlgorithms, signingAlgorithms } = abilitiesOf(keyring, key);
  return {
    keyId: key.keyId,
    keyType: keyTypeOf(key),
    ...(key.defaultKind ? { defaultKind: key.defaultKind } : {}),
    keySpec: key.keySpec,
    keyUsage: key.keyUsage,
    keyState: 'Enabled',
    protectionLevel: key.protectionLevel,
    origin: key.origin,
    description: key.description,
    aliases: keyring.aliasNames(key.keyId),
    tags: key.tags,
    creator: key.creator,
    creationTime: formatTime(key.creationTime),
    primaryKeyVersionId: key.primaryKeyVersionId,
    keyVersionCount: key.versions.length,
    rotation: { status: 'Disabled' },
    deletionProtection: { enabled: key.deletionProtection },
    encryptionAlgorithms: [...encryptionAlgorithms],
    signingAlgorithms: [...signingAlgorithms],
    useCount: key.versions.reduce((sum, version) => sum + version.useCount, 0),
  };
}

/** The version as callers see it. @throws AgentError `ERR_KEY_VERSION_NOT_FOUND`. */
export function describeVersion(key: Key, keyVersionId: string): KeyVersion {
  const version = findVersion(key, keyVersionId);
  return {
    keyId: key.keyId,
    keyVersionId,
    creationTime: formatTime(version.creationTime),
    initial: version === initialVersion(key),
    primary: keyVersionId === key.primaryKeyVersionId,
    useCount: version.useCount,
  };
}

/** The alias as callers see it. */
export function describeAlias({ aliasName, keyId, creationTime, lastUpdateTime }: AliasEntry): Alias {
  return { aliasName, keyId, creationTime: formatTime(creationTime), lastUpdateTime: formatTime(lastUpdateTime) };
}

function hasAliasWithPrefix(key: KeyMetadata, prefixes: readonly string[]): boolean {
  const full = prefixes.map((prefix) => (prefix.startsWith('alias/') ? prefix : `alias/${prefix}`));
  return key.aliases.some((alias) => full.some((prefix) => alias.startsWith(prefix)));
}

/** Whether a key passes the filters: AND between fields, OR inside one. */
export function matchesFilters(key: KeyMetadata, filters: KeyFilters): boolean {
  const fields = ['keyState', 'keySpec', 'keyUsage', 'protectionLevel', 'keyType', 'origin'] as const;
  const admits = (field: (typeof fields)[number]): boolean => filters[field] === undefined || filters[field].some((value) => value === key[field]);
  if (!fields.every(admits)) return false;
  if (filters.aliasPrefix && !hasAliasWithPrefix(key, filters.aliasPrefix)) return false;
  return Object.entries(filters.tags ?? {}).every(([name, value]) => Object.hasOwn(key.tags, name) && key.tags[name] === value);
}
