import { AgentError, type KeySpec, type KeyUsage } from '@kms-agent/protocol';
import { isToken, type Provider, type Refused } from '../providers/provider.ts';
import type { Key } from './key.ts';

/** An error that says what this kind of key cannot do. */
export const unsupported = (hint: string): AgentError => new AgentError('ERR_UNSUPPORTED_OPERATION', { hint });

/** The error of what a key's provider does not offer; where that is a token, its log names the mechanism. */
export function refuseAlgorithm(provider: Provider | undefined, refused: Refused, hint?: string): AgentError {
  if (provider && isToken(provider)) provider.noteRefused(refused);
  return new AgentError('ERR_UNSUPPORTED_ALGORITHM', hint === undefined ? {} : { hint });
}

/** @throws AgentError `ERR_UNSUPPORTED_OPERATION` for the key of a service, which nobody changes. */
export function requireChangeable(key: Key): void {
  if (key.defaultKind === 'SERVICE') throw unsupported('The key of a service is managed by the agent; nobody can change, disable or delete it.');
}

/** @throws AgentError `ERR_DELETION_PROTECTED`. */
export function requireUnprotected(key: Key): void {
  if (key.deletionProtection.enabled) throw new AgentError('ERR_DELETION_PROTECTED');
}

/** @throws AgentError `ERR_UNSUPPORTED_OPERATION` unless the agent made the material and may make more. */
export function requireGenerated(key: Key): void {
  requireChangeable(key);
  if (key.origin !== 'GENERATED') throw unsupported('Imported material has one version.');
}

/** @throws AgentError `ERR_UNSUPPORTED_OPERATION` unless the material comes from outside. */
export function requireExternal(key: Key): void {
  requireChangeable(key);
  if (key.origin !== 'EXTERNAL') throw unsupported('The agent made the material of this key; only a key of origin EXTERNAL takes imported material.');
}

export const isSymmetric = (keySpec: KeySpec): boolean => keySpec.startsWith('AES_');

/** AES encrypts and EC signs; RSA must say which, because a key never changes its usage. */
export function chooseUsage(keySpec: KeySpec, keyUsage: KeyUsage | undefined): KeyUsage {
  if (keySpec.startsWith('RSA_')) {
    if (keyUsage) return keyUsage;
    throw new AgentError('ERR_INVALID_PARAMS', { path: '/keyUsage', reason: 'is required for RSA' });
  }
  const only: KeyUsage = isSymmetric(keySpec) ? 'ENCRYPT_DECRYPT' : 'SIGN_VERIFY';
  if (keyUsage && keyUsage !== only) throw unsupported(`${keySpec} keys are for ${only}.`);
  return only;
}
