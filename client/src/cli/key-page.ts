import type { KeyMetadata } from '@kms-agent/protocol';
import { describeCount, describeTime, formatPage } from './page.ts';

function describeKind({ keyType, defaultKind, service, protectionLevel, keySpec, keyUsage, token }: KeyMetadata): string {
  const kind = {
    DEFAULT: defaultKind === 'SERVICE' ? `default key of ${service}` : 'default key',
    SOFTWARE: 'software-protected',
    HARDWARE: `hardware-protected in ${token}`,
  }[keyType];
  const usage = keyUsage === 'SIGN_VERIFY' ? 'signs and verifies' : 'encrypts and decrypts';
  return `${keySpec}, ${kind ?? protectionLevel}, ${usage}`;
}

function describeRotation({ rotation }: KeyMetadata, nowMs: number): string {
  const { status, rotationInterval, lastRotationTime, nextRotationTime } = rotation;
  const every = rotationInterval === undefined ? '' : ` every ${rotationInterval}`;
  if (status === 'Enabled' && nextRotationTime !== undefined) return `on,${every}, next ${describeTime(nextRotationTime, nowMs)}`;
  return `${status === 'Suspended' ? `suspended,${every}` : 'off'}, last ${describeTime(lastRotationTime, nowMs)}`;
}

/** Material whose time is over and that is still used waits for somebody's word about the clock. */
function describeWait({ materialExpireTime = '', keyState }: KeyMetadata, nowMs: number): string {
  const waits = Date.parse(materialExpireTime) < nowMs && keyState !== 'PendingImport';
  return waits ? ', kept until the clock is believed: kms status, kms confirm-clock' : '';
}

/** A key as a page that a person reads: what it is, how it is, what it can, and what comes. */
export function formatKeyPage(key: KeyMetadata, nowMs: number): string {
  const { deletionTime, materialExpireTime, lastUsedTime, deletionProtection, unlockLifetime } = key;
  const tags = Object.entries(key.tags).map(([name, value]) => `${name}=${value}`);
  const protection = deletionProtection.enabled ? `yes${deletionProtection.description ? `: ${deletionProtection.description}` : ''}` : 'no';
  return formatPage([
    ['Key', key.keyId],
    key.aliases.length > 0 ? ['Aliases', key.aliases.join(', ')] : undefined,
    key.description ? ['Description', key.description] : undefined,
    ['Kind', describeKind(key)],
    ['State', key.keyState],
    deletionTime === undefined ? undefined : ['Destroyed', describeTime(deletionTime, nowMs)],
    materialExpireTime === undefined ? undefined : ['Expires', describeTime(materialExpireTime, nowMs) + describeWait(key, nowMs)],
    unlockLifetime === undefined ? undefined : ['Usable', `${unlockLifetime} after each unlock`],
    ['Protected', protection],
    ['Material', key.origin === 'EXTERNAL' ? 'imported' : 'generated'],
    ['Versions', `${key.keyVersionCount}, primary ${key.primaryKeyVersionId}`],
    key.origin === 'GENERATED' && key.keySpec.startsWith('AES_') ? ['Rotation', describeRotation(key, nowMs)] : undefined,
    ['Algorithms', [...key.encryptionAlgorithms, ...key.signingAlgorithms].join(', ')],
    tags.length > 0 ? ['Tags', tags.join(', ')] : undefined,
    ['Created', `${describeTime(key.creationTime, nowMs)} by ${key.creator}`],
    ['Last used', lastUsedTime === undefined ? 'never' : describeTime(lastUsedTime, nowMs)],
    key.keySpec.startsWith('AES_') ? ['Encrypted', describeCount(key.useCount, 'message')] : undefined,
  ]);
}
