import { AgentError, type Keyslot } from '@kms-agent/protocol';
import { Database } from './database.ts';
import { hasVault, vaultPath } from './folder.ts';
import { describeKeyslot, Keyslots, type Secret, typeOf } from './keyslots/index.ts';
import { Argon2Queue } from './keyslots/passphrase.ts';
import { deriveKey, recordAad, unseal } from './seal.ts';

/** What a look at a vault gives; both are the caller's to wipe. */
export interface Peeked {
  readonly auditStartKey: Buffer;
  /** Undefined when there is no such record. */
  readonly plaintext: Buffer | undefined;
}

/**
 * Reads one record of a vault and the start key of its audit record, also beside an agent that has it open.
 * @throws AgentError `ERR_NOT_INITIALIZED`, `ERR_UNLOCK_FAILED`, `ERR_STORE_UNAVAILABLE`; `ERR_STATE_CONFLICT` when the record was changed.
 */
export async function peekRecord(dataDir: string, secret: Secret, { kind, id }: { kind: string; id: string }): Promise<Peeked> {
  if (!hasVault(dataDir)) throw new AgentError('ERR_NOT_INITIALIZED');
  const db = Database.open(vaultPath(dataDir), { readOnly: true });
  try {
    const keyslots = new Keyslots(db.vaultId, new Argon2Queue());
    const { rootKey, auditStartKey } = await keyslots.openBoth(db.keyslots(), secret);
    const row = db.find(kind, id);
    const recordsKey = deriveKey(rootKey, 'records');
    rootKey.fill(0);
    const plaintext = row && row.revision >= 0n ? unseal(recordsKey, recordAad(db.vaultId, kind, id, row.revision), row.sealed) : undefined;
    recordsKey.fill(0);
    if (row && !plaintext) throw new AgentError('ERR_STATE_CONFLICT', { hint: `The vault is damaged: its record ${kind} ${id} was changed.` });
    return { auditStartKey, plaintext };
  } finally {
    db.close();
  }
}

/** The keyslots of a vault, also beside an agent that has it open; a damaged one is left out. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
export function peekKeyslots(dataDir: string): Keyslot[] {
  const db = Database.open(vaultPath(dataDir), { readOnly: true });
  try {
    return [...db.keyslots().values()].filter((body) => typeOf(body) !== undefined).map(describeKeyslot);
  } finally {
    db.close();
  }
}
