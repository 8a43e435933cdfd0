import { randomUUID } from 'node:crypto';
import { isAgentError } from '@kms-agent/protocol';
import type { AuditEntry } from '../audit/record.ts';
import type { Keyring } from './keyring.ts';
import type { KeyringChanges } from './records.ts';

/** What the agent does with a key by itself, nobody asking. */
export interface AgentAct {
  /** `drop`: its unlockLifetime is over; nothing in the vault changes. */
  readonly act: 'rotate' | 'destroy' | 'expire' | 'budget' | 'create' | 'drop';
  readonly keyId: string;
  readonly keyVersionId?: string;
}

/** What acts ask of the audit record. */
export interface ActRecorder {
  /** Records an entry before it returns. @throws AgentError `ERR_AUDIT_UNAVAILABLE`. */
  recordNow(entry: AuditEntry): void;
  /** Records what has happened already: now, or as soon as it can be written. */
  note(entry: AuditEntry): void;
}

/** What acts work with. */
export interface ActsOptions {
  readonly keyring: Keyring;
  readonly recorder: ActRecorder;
  /** Hears of each act, once it is done. */
  readonly onAct: (act: AgentAct) => void;
}

/**
 * Makes an act durable: recorded as begun, committed, and its end recorded, all in the turn in which it was found to be due.
 * What a killed agent had begun is closed at the next unlock.
 * @throws AgentError `ERR_AUDIT_UNAVAILABLE`: nothing was done; as Keyring.commit.
 */
export type CommitAct = (act: AgentAct, changes: KeyringChanges) => void;

/** The one road by which the agent changes keys by itself: as with what callers change, there is no change without its record. */
export function makeCommitAct({ keyring, recorder, onAct }: ActsOptions): CommitAct {
  return (act, changes) => {
    const { act: operation, ...key } = act;
    const entry = { operation, ...key, requestId: randomUUID() };
    recorder.recordNow({ ...entry, outcome: 'begun', vaultRevision: String(keyring.vault.revision) });
    try {
      keyring.commit(changes);
    } catch (error) {
      recorder.note({ ...entry, outcome: 'failed', error: isAgentError(error) ? error.code : 'ERR_INTERNAL' });
      throw error;
    }
    recorder.note({ ...entry, outcome: 'done' });
    onAct(act);
  };
}
