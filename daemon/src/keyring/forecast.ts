import type { ErrorCode, MethodName } from '@kms-agent/protocol';
import { isAgentError } from '@kms-agent/protocol';
import { bindsCiphertexts } from './cipher.ts';
import { type Key, maxKeyVersions } from './key.ts';
import { abilitiesOf, shownState } from './metadata.ts';
import type { OpenKeyring } from './open-keyring.ts';
import { isSymmetric, requireChangeable, requireExternal, requireGenerated, requireUnprotected, unsupported } from './rules.ts';
import type { KeyAct } from './state.ts';

/** What each method with a key does, as the table of states knows it. */
export const acts: Partial<Record<MethodName, KeyAct>> = {
  encrypt: 'cryptography',
  decrypt: 'cryptography',
  advanceEncrypt: 'cryptography',
  advanceDecrypt: 'cryptography',
  generateDataKey: 'cryptography',
  advanceGenerateDataKey: 'cryptography',
  generateDataKeyWithoutPlaintext: 'cryptography',
  reEncrypt: 'cryptography',
  sign: 'cryptography',
  verify: 'cryptography',
  getPublicKey: 'publicKey',
  updateKeyDescription: 'describe',
  tagKey: 'describe',
  untagKey: 'describe',
  enableKey: 'enable',
  disableKey: 'disable',
  scheduleKeyDeletion: 'scheduleDeletion',
  cancelKeyDeletion: 'cancelDeletion',
  setDeletionProtection: 'protect',
  setKeyPolicy: 'protect',
  createAlias: 'aliasTarget',
  updateAlias: 'aliasTarget',
  createKeyVersion: 'version',
  setPrimaryKeyVersion: 'version',
  updateRotationPolicy: 'version',
  getParametersForImport: 'importParameters',
  importKeyMaterial: 'importMaterial',
  deleteKeyMaterial: 'deleteMaterial',
};

const forGenerated: ReadonlySet<MethodName> = new Set(['createKeyVersion', 'setPrimaryKeyVersion', 'updateRotationPolicy']);
const forImported: ReadonlySet<MethodName> = new Set(['getParametersForImport', 'importKeyMaterial', 'deleteKeyMaterial']);
const forSigning: ReadonlySet<MethodName> = new Set(['sign', 'verify']);
const forUnprotected: ReadonlySet<MethodName> = new Set(['scheduleKeyDeletion', 'deleteKeyMaterial']);
const rawEncryption: ReadonlySet<MethodName> = new Set(['encrypt', 'generateDataKey']);
const advanceEncryption: ReadonlySet<MethodName> = new Set(['advanceEncrypt', 'advanceGenerateDataKey', 'generateDataKeyWithoutPlaintext', 'reEncrypt']);
/** What makes or opens ciphertexts without a word of who made them. */
const raw: ReadonlySet<MethodName> = new Set([...rawEncryption, 'decrypt']);
const advance: ReadonlySet<MethodName> = new Set([
  'advanceEncrypt',
  'advanceDecrypt',
  'advanceGenerateDataKey',
  'generateDataKeyWithoutPlaintext',
  'generateDataKey',
  'reEncrypt',
]);
/** Methods that a service may call although nobody changes its key. */
const changesNothing: ReadonlySet<KeyAct> = new Set(['cryptography', 'read', 'publicKey']);

/** @throws AgentError for what this type of key cannot do at all. */
function requireFitting(key: Key, method: MethodName, act: KeyAct | undefined): void {
  if (forGenerated.has(method)) requireGenerated(key);
  if (forImported.has(method)) requireExternal(key);
  if (act !== undefined && !changesNothing.has(act) && method !== 'setKeyPolicy') requireChangeable(key);
  if (method === 'updateRotationPolicy' && !isSymmetric(key.keySpec)) throw unsupported('Only symmetric keys rotate by themselves.');
  if (raw.has(method) && bindsCiphertexts(key)) throw unsupported("The key's policy binds ciphertexts to their caller.");
}

function fitsUsage({ keySpec, keyUsage }: Key, method: MethodName): boolean {
  if (forSigning.has(method)) return keyUsage === 'SIGN_VERIFY';
  if (advance.has(method)) return isSymmetric(keySpec);
  if (method === 'getPublicKey') return !isSymmetric(keySpec);
  return keyUsage === 'ENCRYPT_DECRYPT';
}

/** Whether a method is one for which a key must be in its unlockLifetime: a public key is nothing to wait for. */
function needsSecret({ keySpec }: Key, method: MethodName): boolean {
  if (method === 'createKeyVersion' || method === 'importKeyMaterial') return true;
  return acts[method] === 'cryptography' && method !== 'verify' && (method !== 'encrypt' || isSymmetric(keySpec));
}

/** What an allowed call to a key would be answered, as far as that can be known without making it; undefined if nothing stands in its way. */
export function forecast({ keyring, budget, aliases }: OpenKeyring, key: Key, method: MethodName): ErrorCode | undefined {
  const act = acts[method];
  try {
    requireFitting(key, method, act);
    const usesMaterial = act === 'cryptography' || act === 'publicKey';
    if (usesMaterial && !fitsUsage(key, method)) return 'ERR_UNSUPPORTED_OPERATION';
    if (act !== undefined) keyring.requireState(key, act);
    if (forUnprotected.has(method)) requireUnprotected(key);
    if (method === 'createKeyVersion' && key.versions.length >= maxKeyVersions) return 'ERR_LIMIT_EXCEEDED';
    if (method === 'createAlias') aliases.checkTarget(key.keyId);
    if (needsSecret(key, method) && keyring.lifetimes.isOver(key.keyId)) return 'ERR_AGENT_LOCKED';
    if (act !== 'cryptography') return undefined;
    abilitiesOf(keyring, key);
  } catch (error) {
    if (isAgentError(error)) return error.code;
    throw error;
  }
  if (rawEncryption.has(method) && isSymmetric(key.keySpec) && budget.isSpent(key)) return 'ERR_LIMIT_EXCEEDED';
  if (advanceEncryption.has(method) && budget.isPrimarySpent(key)) return 'ERR_LIMIT_EXCEEDED';
  if (shownState(keyring, key) !== 'Unavailable') return undefined;
  return keyring.findProvider(key.provider)?.status().state === 'ok' ? 'ERR_KEY_UNAVAILABLE' : 'ERR_HSM_UNAVAILABLE';
}
