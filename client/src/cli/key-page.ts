import type { KeyMetadata } from '@kms-agent/protocol';
import { escapeControls, paintState } from './print.ts';

const day = (time: string): string => time.replace('T', ' ').replace(/\.\d+Z$/, ' UTC');

/** How long until a time, in the largest unit that fits. */
function until(time: string, nowMs: number): string {
  const seconds = Math.round((Date.parse(time) - nowMs) / 1000);
  const [size, unit] =
    (
      [
        [86_400, 'day'],
        [3600, 'hour'],
        [60, 'minute'],
      ] as const
    ).find(([of]) => Math.abs(seconds) >= of) ?? ([1, 'second'] as const);
  const count = Math.floor(Math.abs(seconds) / size);
  const text = `${count} ${unit}${count === 1 ? '' : 's'}`;
  return seconds < 0 ? `${text} ago` : `in ${text}`;
}

const at = (time: string, nowMs: number): string => `${day(time)} (${until(time, nowMs)})`;

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
  if (status === 'Enabled' && nextRotationTime !== undefined) return `on,${every}, next ${at(nextRotationTime, nowMs)}`;
  return `${status === 'Suspended' ? `suspended,${every}` : 'off'}, last ${at(lastRotationTime, nowMs)}`;
}

/** A key as a page that a person reads: what it is, how it is, what it can, and what comes. */
export function formatKeyPage(key: KeyMetadata, nowMs: number): string {
  const { deletionTime, materialExpireTime, lastUsedTime, deletionProtection } = key;
  const tags = Object.entries(key.tags).map(([name, value]) => `${name}=${value}`);
  const protection = deletionProtection.enabled ? `yes${deletionProtection.description ? `: ${deletionProtection.description}` : ''}` : 'no';
  const lines: (readonly [string, string] | undefined)[] = [
    ['Key', key.keyId],
    key.aliases.length > 0 ? ['Aliases', key.aliases.join(', ')] : undefined,
    key.description ? ['Description', key.description] : undefined,
    ['Kind', describeKind(key)],
    ['State', key.keyState],
    deletionTime === undefined ? undefined : ['Destroyed', at(deletionTime, nowMs)],
    materialExpireTime === undefined ? undefined : ['Expires', at(materialExpireTime, nowMs)],
    ['Protected', protection],
    ['Material', key.origin === 'EXTERNAL' ? 'imported' : 'generated'],
    ['Versions', `${key.keyVersionCount}, primary ${key.primaryKeyVersionId}`],
    key.origin === 'GENERATED' && key.keySpec.startsWith('AES_') ? ['Rotation', describeRotation(key, nowMs)] : undefined,
    ['Algorithms', [...key.encryptionAlgorithms, ...key.signingAlgorithms].join(', ')],
    tags.length > 0 ? ['Tags', tags.join(', ')] : undefined,
    ['Created', `${at(key.creationTime, nowMs)} by ${key.creator}`],
    ['Last used', lastUsedTime === undefined ? 'never' : at(lastUsedTime, nowMs)],
    key.keySpec.startsWith('AES_') ? ['Encrypted', `${key.useCount} message${key.useCount === 1 ? '' : 's'}`] : undefined,
  ];
  const shown = lines.filter((line) => line !== undefined);
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${name === 'State' ? paintState(value) : escapeControls(value)}\n`).join('');
}
