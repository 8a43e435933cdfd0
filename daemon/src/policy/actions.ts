import type { MethodName } from '@kms-agent/protocol';

/** What uses a key's material. */
export const cryptographicMethods = [
  'encrypt',
  'decrypt',
  'advanceEncrypt',
  'advanceDecrypt',
  'generateDataKey',
  'advanceGenerateDataKey',
  'generateDataKeyWithoutPlaintext',
  'reEncrypt',
  'sign',
  'verify',
] as const satisfies readonly MethodName[];

const viewing = ['describeKey', 'listKeyVersions', 'describeKeyVersion', 'getPublicKey', 'getKeyPolicy'] as const satisfies readonly MethodName[];

const managing = [
  'updateKeyDescription',
  'enableKey',
  'disableKey',
  'scheduleKeyDeletion',
  'cancelKeyDeletion',
  'setDeletionProtection',
  'createAlias',
  'updateAlias',
  'deleteAlias',
  'tagKey',
  'untagKey',
  'createKeyVersion',
  'setPrimaryKeyVersion',
  'updateRotationPolicy',
  'getParametersForImport',
  'importKeyMaterial',
  'deleteKeyMaterial',
  'setKeyPolicy',
] as const satisfies readonly MethodName[];

/** A method that a key's policy speaks of. */
export type KeyAction = (typeof cryptographicMethods)[number] | (typeof viewing)[number] | (typeof managing)[number];

/** A method without a key that the agent's policy speaks of. */
export const agentActions = ['createKey', 'listKeys', 'listAliases', 'metrics', 'lock', 'explain'] as const satisfies readonly MethodName[];
export type AgentAction = (typeof agentActions)[number];

/** Names that stand for several actions of a key's policy. */
export const actionGroups: Readonly<Record<'use' | 'view' | 'manage', readonly KeyAction[]>> = {
  use: [...cryptographicMethods, 'getPublicKey', 'describeKey'],
  view: viewing,
  manage: managing,
};

/** Every action of a key's policy. */
export const keyActions: readonly KeyAction[] = [...cryptographicMethods, ...viewing, ...managing];

/** Everybody who can open the socket may do these. */
export const openMethods: ReadonlySet<MethodName> = new Set(['status', 'whoAmI', 'rpc.discover', 'generateRandom']);

const cryptographic: ReadonlySet<string> = new Set(cryptographicMethods);

/** Whether a method uses a key's material. */
export const isCryptographic = (method: string): boolean => cryptographic.has(method);

/** What administrators may do whatever a policy says, so that a policy can be mended. */
export const isMending = (action: string): boolean => action === 'getKeyPolicy' || action === 'setKeyPolicy';

/** Which actions a policy may name: those of keys, with their groups, or those of the agent. @returns undefined for an unknown name. */
export function expandAction(name: string, of: 'key' | 'agent'): readonly string[] | undefined {
  if (of === 'agent') return (agentActions as readonly string[]).includes(name) ? [name] : undefined;
  if (Object.hasOwn(actionGroups, name)) return actionGroups[name as keyof typeof actionGroups]; // hasOwn proved it
  return (keyActions as readonly string[]).includes(name) ? [name] : undefined;
}
