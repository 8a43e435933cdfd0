import { AgentError, type ErrorCode, type KeyState } from '@kms-agent/protocol';

/** What is stored of a key's state; `Unavailable` is an overlay that the provider adds at each answer. */
export interface StoredState {
  /** A flag of its own: it survives the loss of material and a cancelled deletion. */
  readonly disabled: boolean;
  readonly pendingDeletion: boolean;
  /** False before the first import, after deleteKeyMaterial, and when the material has expired. */
  readonly hasMaterial: boolean;
}

/** The states that are stored. */
export type StoredKeyState = Exclude<KeyState, 'Unavailable'>;

/** What is done with a key, as far as its state has a say. */
export type KeyAct =
  | 'cryptography'
  | 'read'
  | 'describe'
  | 'enable'
  | 'disable'
  | 'scheduleDeletion'
  | 'cancelDeletion'
  | 'aliasTarget'
  | 'version'
  | 'importParameters'
  | 'importMaterial'
  | 'deleteMaterial'
  | 'publicKey'
  | 'protect';

type Verdict = 'ok' | ErrorCode;

const row = (Enabled: Verdict, Disabled: Verdict, PendingDeletion: Verdict, PendingImport: Verdict): Readonly<Record<StoredKeyState, Verdict>> => ({
  Enabled,
  Disabled,
  PendingDeletion,
  PendingImport,
});

/** Which act a state lets through, and what the others are answered. In the order Enabled, Disabled, PendingDeletion, PendingImport. */
export const stateTable: Readonly<Record<KeyAct, Readonly<Record<StoredKeyState, Verdict>>>> = {
  cryptography: row('ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_KEY_PENDING_IMPORT'),
  read: row('ok', 'ok', 'ok', 'ok'),
  describe: row('ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'),
  enable: row('ok', 'ok', 'ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT'),
  disable: row('ok', 'ok', 'ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT'),
  scheduleDeletion: row('ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'),
  cancelDeletion: row('ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT', 'ok', 'ERR_STATE_CONFLICT'),
  aliasTarget: row('ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'),
  version: row('ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_UNSUPPORTED_OPERATION'),
  importParameters: row('ok', 'ok', 'ok', 'ok'),
  importMaterial: row('ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'),
  deleteMaterial: row('ok', 'ok', 'ok', 'ok'),
  publicKey: row('ok', 'ok', 'ok', 'ERR_KEY_PENDING_IMPORT'),
  protect: row('ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'),
};

/** What changes a state. `expire` is the agent's own act: the material's time is over. */
export type KeyEvent = 'enable' | 'disable' | 'scheduleDeletion' | 'cancelDeletion' | 'importMaterial' | 'deleteMaterial' | 'expire';

/** The state that callers see. */
export function stateOf({ disabled, pendingDeletion, hasMaterial }: StoredState): StoredKeyState {
  if (pendingDeletion) return 'PendingDeletion';
  if (!hasMaterial) return 'PendingImport';
  return disabled ? 'Disabled' : 'Enabled';
}

/** @throws AgentError whatever the table answers for this act in this state. */
export function requireState(stored: StoredState, act: KeyAct): void {
  const verdict = stateTable[act][stateOf(stored)];
  if (verdict !== 'ok') throw new AgentError(verdict);
}

const effects: Readonly<Record<KeyEvent, Partial<StoredState>>> = {
  enable: { disabled: false },
  disable: { disabled: true },
  scheduleDeletion: { pendingDeletion: true },
  cancelDeletion: { pendingDeletion: false },
  importMaterial: { hasMaterial: true },
  deleteMaterial: { hasMaterial: false },
  expire: { hasMaterial: false },
};

/**
 * The state after an event.
 * @throws AgentError whatever the table answers when the state does not let the event through.
 */
export function transition(stored: StoredState, event: KeyEvent): StoredState {
  if (event !== 'expire') requireState(stored, event);
  return { ...stored, ...effects[event] };
}
