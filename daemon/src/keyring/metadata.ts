import type { Alias, KeyFilters, KeyMetadata, KeyState, KeyType, KeyVersion, RotationStatus } from '@kms-agent/protocol';
import { AgentError, formatDuration } from '@kms-agent/protocol';
import { type Abilities, isToken } from '../providers/provider.ts';
import type { AliasEntry } from './alias-book.ts';
import { deletionTimeOf } from './deletion.ts';
import { countUses, findVersion, initialVersion, type Key, nextRotationTime, primaryVersion } from './key.ts';
import type { Keyring } from './keyring.ts';
import type { PageIds } from './page.ts';
import { SortedIds } from './sorted-ids.ts';
import type { StoredKeyState } from './state.ts';

/** RFC 3339 in UTC with milliseconds. */
const formatTime = (timeMs: number): string => new Date(timeMs).toISOString();

function keyTypeOf(key: Key): KeyType {
  if (key.defaultKind) return 'DEFAULT';
  return key.protectionLevel === 'HSM' ? 'HARDWARE' : 'SOFTWARE';
}

/**
 * What the key's provider offers for it, or was seen to offer while it is away; the first of each list is the default.
 * @throws AgentError `ERR_KEY_UNAVAILABLE` when the provider no longer knows such keys.
 */
export function abilitiesOf(keyring: Keyring, key: Key): Abilities {
  const abilities = keyring.findProvider(key.provider)?.abilities(key.keySpec, key.keyUsage) ?? key.abilities;
  if (!abilities) throw new AgentError('ERR_KEY_UNAVAILABLE');
  return abilities;
}

function describeRotation(key: Key, state: StoredKeyState): RotationStatus {
  const { rotation, lastRotationTime } = key;
  const next = nextRotationTime(key);
  const isOn = state === 'Enabled' && next !== undefined;
  return {
    status: isOn ? 'Enabled' : rotation.enabled ? 'Suspended' : 'Disabled',
    ...(rotation.intervalMs === undefined ? {} : { rotationInterval: formatDuration(rotation.intervalMs / 1000) }),
    lastRotationTime: formatTime(lastRotationTime),
    ...(isOn ? { nextRotationTime: formatTime(next) } : {}),
  };
}

/** Whether the key's token has what the key uses, as far as is known. */
function isAvailable(keyring: Keyring, key: Key): boolean {
  if (key.protectionLevel === 'SOFTWARE') return true;
  const provider = keyring.findProvider(key.provider);
  if (!provider || !isToken(provider)) return false;
  return [primaryVersion(key), initialVersion(key)].every(({ keyVersionId }) => provider.isAvailable(keyVersionId));
}

/** The state that callers see: an enabled key whose token is away, or does not prove it, is Unavailable until that ends. */
export function shownState(keyring: Keyring, key: Key): KeyState {
  const state = keyring.stateOf(key);
  return state === 'Enabled' && !isAvailable(keyring, key) ? 'Unavailable' : state;
}

/** The key as callers see it. */
export function describeKey(keyring: Keyring, key: Key): KeyMetadata {
  const { encryptionAlgorithms, signingAlgorithms } = abilitiesOf(keyring, key);
  const keyState = shownState(keyring, key);
  const { materialExpireTime, usage } = key;
  const deletionTime = deletionTimeOf(key, keyring.clock);
  return {
    keyId: key.keyId,
    keyType: keyTypeOf(key),
    ...(key.defaultKind ? { defaultKind: key.defaultKind } : {}),
    ...(key.service === undefined ? {} : { service: key.service }),
    keySpec: key.keySpec,
    keyUsage: key.keyUsage,
    keyState,
    protectionLevel: key.protectionLevel,
    ...(key.protectionLevel === 'HSM' ? { token: key.provider } : {}),
    origin: key.origin,
    description: key.description,
    aliases: keyring.aliases.namesOf(key.keyId),
    tags: { ...key.tags },
    creator: key.creator,
    creationTime: formatTime(key.creationTime),
    primaryKeyVersionId: key.primaryKeyVersionId,
    keyVersionCount: key.versions.length,
    rotation: describeRotation(key, keyring.stateOf(key)),
    ...(deletionTime === undefined ? {} : { deletionTime: formatTime(deletionTime) }),
    deletionProtection: key.deletionProtection,
    ...(key.lifetime ? { unlockLifetime: formatDuration(key.lifetime.seconds) } : {}),
    ...(materialExpireTime === undefined ? {} : { materialExpireTime: formatTime(materialExpireTime) }),
    encryptionAlgorithms: [...encryptionAlgorithms],
    signingAlgorithms: [...signingAlgorithms],
    ...(usage.lastUsedTime === 0 ? {} : { lastUsedTime: formatTime(usage.lastUsedTime) }),
    useCount: countUses(key),
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

/** With `alias/`, as aliases are kept. */
const completePrefix = (prefix: string): string => (prefix.startsWith('alias/') ? prefix : `alias/${prefix}`);

function hasAliasWithPrefix(aliases: readonly string[], prefixes: readonly string[]): boolean {
  const full = prefixes.map(completePrefix);
  return aliases.some((alias) => full.some((prefix) => alias.startsWith(prefix)));
}

/** Aliases that are looked up for one page; where more fit, the keys are walked as without a prefix. */
const maxLookedUp = 1000;

/** Ids of the keys that may pass the filters, in their order: where few aliases fit, those that they name; else all. */
export function findCandidates({ aliases, keyIds }: Keyring, { aliasPrefix }: KeyFilters): PageIds {
  if (!aliasPrefix) return keyIds;
  const names = aliasPrefix.flatMap((prefix) => aliases.names.beginningWith(completePrefix(prefix), maxLookedUp + 1));
  return names.length > maxLookedUp ? keyIds : SortedIds.of(names.map((name) => aliases.get(name).keyId));
}

/** Whether a key passes the filters: AND between fields, OR inside one. */
export function matchesFilters(keyring: Keyring, key: Key, filters: KeyFilters): boolean {
  const admits = (choices: readonly string[] | undefined, value: string): boolean => choices === undefined || choices.includes(value);
  if (!admits(filters.keySpec, key.keySpec) || !admits(filters.keyUsage, key.keyUsage) || !admits(filters.protectionLevel, key.protectionLevel)) return false;
  if (!admits(filters.origin, key.origin) || !admits(filters.keyType, keyTypeOf(key))) return false;
  if (filters.keyState && !admits(filters.keyState, shownState(keyring, key))) return false;
  if (filters.aliasPrefix && !hasAliasWithPrefix(keyring.aliases.namesOf(key.keyId), filters.aliasPrefix)) return false;
  return Object.entries(filters.tags ?? {}).every(([name, value]) => Object.hasOwn(key.tags, name) && key.tags[name] === value);
}
