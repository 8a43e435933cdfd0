import { randomBytes } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import type { Audit } from '../audit/audit.ts';
import { type AuditState, encodeState } from '../audit/chain.ts';
import type { AuditEntry, AuditRecord } from '../audit/record.ts';
import { firstState, resume } from '../audit/resume.ts';
import type { Opening, Vault } from '../vault/vault.ts';
import { initialVersion } from './key.ts';
import type { Keyring } from './keyring.ts';

/** Where the vault keeps the state of the audit record. */
export const auditRecord = { kind: 'audit', id: 'state' } as const;

export interface WitnessOptions {
  readonly audit: Audit;
  /** Revision of an older vault that an administrator wants to go on with. */
  readonly acceptRollback?: bigint;
  readonly onWarning: (warning: string) => void;
}

/** Ties the audit record to the vault: each remembers where the other was, so that neither can be put back alone without notice. */
export class Witness {
  readonly #audit: Audit;
  readonly #acceptRollback: bigint | undefined;
  readonly #onWarning: (warning: string) => void;
  /** What is wrong with the record, for status. */
  finding: string | undefined;

  constructor({ audit, acceptRollback, onWarning }: WitnessOptions) {
    this.#audit = audit;
    this.#acceptRollback = acceptRollback;
    this.#onWarning = onWarning;
  }

  get audit(): Audit {
    return this.#audit;
  }

  /**
   * Takes up the record where the vault knows it, before anything is done with the vault.
   * @throws AgentError `ERR_STATE_CONFLICT` when a checkpoint has seen a newer vault than this one.
   */
  async open(vault: Vault, keyring: Keyring, { auditStartKey }: Pick<Opening, 'auditStartKey'>): Promise<void> {
    const state = keyring.auditState ?? (auditStartKey && firstState(auditStartKey));
    const anchor = {
      revision: () => vault.revision,
      isClockBelievable: () => keyring.clock.isBelievable(),
      keep: (kept: AuditState) => this.#keep(vault, kept),
    };
    if (this.#audit.isKeyed || !state) {
      state?.key.fill(0); // a key of the past by now
      this.#checkRevision(vault, keyring, this.#audit.vaultRevision);
      return this.#audit.attach(undefined, anchor);
    }
    const { key, number, vaultRevision, openChanges, finding } = await resume(this.#audit.folder, state, this.#audit.end);
    this.#checkRevision(vault, keyring, vaultRevision);
    if (finding !== undefined) this.#report(finding);
    this.#audit.attach({ key, number, droppedSeq: state.droppedSeq }, anchor);
    for (const copy of [key, state.key]) copy.fill(0);
    for (const begun of openChanges) this.#note(closeChange(begun, vault, keyring));
  }

  /** An older vault than one that was seen opens only for an administrator who wants it. @throws AgentError `ERR_STATE_CONFLICT`. */
  #checkRevision(vault: Vault, keyring: Keyring, seen: bigint): void {
    if (seen <= vault.revision) return;
    if (this.#acceptRollback !== vault.revision) throw rolledBack(vault.revision, seen);
    keyring.isRolledBack = true;
    this.#note({ operation: 'acceptRollback', outcome: 'ok', detail: { vaultRevision: String(vault.revision), seen: String(seen) } });
  }

  /** Begins with a vault that lives in memory: its record is keyed for as long as it lives. */
  begin(vault: Vault, { clock }: Keyring): void {
    const anchor = { revision: () => vault.revision, isClockBelievable: () => clock.isBelievable(), keep: () => true };
    this.#audit.attach(firstState(randomBytes(32)), anchor);
  }

  /** What an administrator should know of the record. */
  get warnings(): string[] {
    const broken = this.finding === undefined ? [] : [this.finding];
    return this.#audit.health === 'ok' ? broken : [...broken, 'The audit record cannot be written: requests are refused until it can.'];
  }

  /** Keeps one more checkpoint in the vault, which is about to be locked. */
  close(): void {
    this.#audit.detach();
  }

  note(entry: AuditEntry): void {
    this.#note(entry);
  }

  #note(entry: AuditEntry): void {
    this.#audit.note(entry);
  }

  #report(finding: string): void {
    this.finding = finding;
    this.#onWarning(finding);
    this.#note({ operation: 'audit', outcome: 'failed', error: 'broken', detail: { finding } });
  }

  /** A vault that cannot be written keeps an older state; the walk at the next start goes on from that. */
  #keep(vault: Vault, state: AuditState): boolean {
    const plaintext = encodeState(state);
    try {
      vault.commit([{ ...auditRecord, plaintext }]);
      return true;
    } catch {
      this.#onWarning('the checkpoint of the audit record could not be kept in the vault; the one before it is');
      return false;
    } finally {
      plaintext.fill(0);
    }
  }
}

function rolledBack(revision: bigint, seen: bigint): AgentError {
  return new AgentError('ERR_STATE_CONFLICT', {
    hint: `The vault is older than the audit record: it is at revision ${revision}, and revision ${seen} was seen. If it was put back on purpose, start the agent once with --accept-rollback ${revision}; how systemd does that, the operator's guide says: An older vault.`,
  });
}

/** What the vault shows of a change that was begun when the process ended; `unknown` where it shows nothing for certain. */
function closeChange(begun: AuditRecord, vault: Vault, keyring: Keyring): AuditEntry {
  const { seq, operation, requestId, keyId } = begun;
  return {
    operation,
    ...(keyId === undefined ? {} : { keyId }),
    ...findEnd(begun, vault, keyring),
    ...(requestId === undefined ? {} : { requestId }),
    detail: { begunSeq: seq },
  };
}

/**
 * Whether the vault shows what an act of the agent's own leaves. It is one commit, and no other can undo it before it is closed here.
 * @returns undefined for what is no such act.
 */
function isActDone({ operation, keyId = '', keyVersionId }: AuditRecord, vault: Vault, keyring: Keyring): boolean | undefined {
  const key = keyring.findKey(keyId);
  switch (operation) {
    case 'create':
      return key !== undefined;
    case 'destroy':
      return vault.revisionOf('tombstone', keyId) !== undefined;
    case 'expire':
      return key && initialVersion(key).material.length === 0;
    case 'rotate':
    case 'budget':
      return key?.versions.some((version) => version.keyVersionId === keyVersionId);
    default:
      return undefined;
  }
}

const notDone = { outcome: 'failed', error: 'notDone' } as const;

/** What an act of the agent's own leaves tells for certain. A creation leaves its client token in its own transaction; a key that was not written since was not changed; and no key is made without a new one. */
function findEnd(begun: AuditRecord, vault: Vault, keyring: Keyring): Pick<AuditEntry, 'outcome' | 'error' | 'keyId' | 'keyVersionId'> {
  const { operation, keyId, keyVersionId, vaultRevision = '0', time, caller, detail } = begun;
  const isDone = caller ? undefined : isActDone(begun, vault, keyring);
  if (isDone !== undefined) return isDone ? { outcome: 'done', ...(keyVersionId === undefined ? {} : { keyVersionId }) } : notDone;
  const token = detail?.['clientToken'];
  if (typeof token === 'string') {
    const made = keyring.clientTokens.get(`${caller?.uid}:${token}`);
    return made ? { outcome: 'done', keyId: made.keyId, keyVersionId: made.keyVersionId } : notDone;
  }
  if (operation === 'createKey') return hasNewKey(keyring, Date.parse(time)) ? { outcome: 'unknown' } : notDone;
  const revision = keyId === undefined ? undefined : (vault.revisionOf('key', keyId) ?? vault.revisionOf('tombstone', keyId));
  return revision !== undefined && revision <= BigInt(vaultRevision) ? notDone : { outcome: 'unknown' };
}

/** Whether a key was made since; the newest one tells. */
const hasNewKey = (keyring: Keyring, sinceMs: number): boolean => [...keyring.newestKeys(1)].some((key) => key.creationTime >= sinceMs);
