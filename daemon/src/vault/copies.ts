import { existsSync } from 'node:fs';
import { AgentError, type Keyslot } from '@kms-agent/protocol';
import { describeFinding, type Finding } from './damage.ts';
import { Database } from './database.ts';
import { claimFolder, nameFinished, removeUnfinished, startFile, unfinishedPath, vaultPath } from './folder.ts';
import type { Mentions, OpenRecord } from './inspection.ts';
import type { NewKeyslot, Secret } from './keyslots/index.ts';
import { parseRecoveryCode } from './keyslots/recovery.ts';
import { type Moving, moveRecords } from './moving.ts';
import { Vault, type VaultOptions } from './vault.ts';

/** Copies a database whole, log included, into a new 0600 file that appears only when it is complete, and durable. */
async function copyDatabase(source: Database, into: string, finish: (copy: Database) => void): Promise<void> {
  try {
    await source.backup(startFile(into));
    const copy = Database.open(unfinishedPath(into));
    try {
      finish(copy);
      copy.leaveLog();
    } finally {
      copy.close();
    }
    nameFinished(into);
  } finally {
    source.close();
    removeUnfinished(into);
  }
}

/**
 * Writes a consistent sealed copy of a vault, also while an agent uses it.
 * @throws AgentError `ERR_ALREADY_EXISTS`: no file is ever written over; `ERR_NOT_INITIALIZED`; `ERR_STORE_UNAVAILABLE`.
 */
export async function backupVault(dataDir: string, file: string): Promise<void> {
  if (!existsSync(vaultPath(dataDir))) throw new AgentError('ERR_NOT_INITIALIZED');
  if (existsSync(file)) throw new AgentError('ERR_ALREADY_EXISTS', { hint: `${file} is there already; nothing was written.` });
  await copyDatabase(Database.open(vaultPath(dataDir), { readOnly: true }), file, () => undefined);
}

/** Puts a backup in place, marked so that its use counts are not trusted. @throws AgentError `ERR_ALREADY_EXISTS` when there is a vault; `ERR_STORE_UNAVAILABLE` for a file that is none. */
export async function restoreVault(file: string, dataDir: string): Promise<void> {
  const claim = claimFolder(dataDir, 'new');
  try {
    await copyDatabase(Database.open(file, { frozen: true }), vaultPath(dataDir), (copy) => copy.markRestored());
  } finally {
    claim.release();
  }
}

/** Makes a new root key and seals everything anew. @returns the new recovery code, and the slots that are gone. */
export async function rekeyVault(
  options: VaultOptions & { dataDir: string },
  proof: Secret,
  moving: Moving,
): Promise<{ recoveryCode: string; droppedKeyslots: Keyslot[] }> {
  const vault = Vault.open(options);
  try {
    return await vault.rekey(proof, moving);
  } finally {
    vault.close();
  }
}

/** The records that were saved, and what must be said anew because it was lost. */
export type Complete = (records: readonly OpenRecord[]) => readonly OpenRecord[];

/** What salvageVault must know of the records. */
export interface Salvaging extends Moving {
  readonly mentions: Mentions;
  readonly complete: Complete;
}

/** What salvage saved and what it could not. */
export interface SalvageReport {
  readonly saved: number;
  /** One line each. */
  readonly findings: readonly string[];
  readonly recoveryCode: string;
}

/** Without the records that mention one that is not there: the new vault would be refused as damaged. */
function dropDangling(records: readonly OpenRecord[], mentions: Mentions): { kept: OpenRecord[]; findings: Finding[] } {
  const there = new Set(records.map(({ kind, id }) => `${kind}\0${id}`));
  const isWhole = (record: OpenRecord): boolean => mentions(record).every(({ kind, id }) => there.has(`${kind}\0${id}`));
  const kept = records.filter(isWhole);
  const dropped = records.filter((record) => !isWhole(record));
  const findings = dropped.map(({ kind, id }): Finding => ({ what: 'record', kind, id, reason: 'is left out, because it points at what is missing' }));
  if (dropped.length === 0) return { kept, findings };
  const rest = dropDangling(kept, mentions);
  return { kept: rest.kept, findings: [...findings, ...rest.findings] };
}

/** Opens what can be opened of a damaged vault and writes it to a new one, under the same passphrase, if that was the proof, and a new recovery code. The old one is not touched. */
export async function salvageVault(
  options: VaultOptions & { dataDir: string },
  proof: Secret,
  newDataDir: string,
  { mentions, complete, ...moving }: Salvaging,
): Promise<SalvageReport> {
  const damaged = Vault.open(options);
  try {
    const opening = await damaged.openKeyslot(proof);
    const { findings, records } = await damaged.salvageWith(opening, mentions);
    const { kept, findings: dangling } = dropDangling(
      records.filter(({ kind }) => kind !== 'audit'), // the new vault begins a record of its own
      mentions,
    );
    const byCode = parseRecoveryCode(proof.passphrase) !== undefined;
    const slots: NewKeyslot[] = byCode ? [{ type: 'recovery' }] : [{ type: 'passphrase', passphrase: proof.passphrase }, { type: 'recovery' }];
    const { vault, recoveryCode = '' } = await Vault.create({ ...options, dataDir: newDataDir, slots });
    const moved = moveRecords(complete(kept), moving, opening.rootKey, vault.box);
    opening.wipe();
    vault.markRestored(); // what was saved may be older than it was; first, so that whatever ends this in between leaves no vault that looks whole and is not marked
    vault.commit(moved);
    vault.close();
    for (const { plaintext } of [...records, ...moved]) plaintext.fill(0);
    await checkOpens({ ...options, dataDir: newDataDir }, recoveryCode, mentions);
    return { saved: kept.length, findings: [...findings, ...dangling].map(describeFinding), recoveryCode };
  } finally {
    damaged.close();
  }
}

/** Opens the new vault once, as its owner will: "saved" is said only after that. */
async function checkOpens(options: VaultOptions & { dataDir: string }, passphrase: string, mentions: Mentions): Promise<void> {
  const vault = Vault.open(options);
  try {
    const opening = await vault.openKeyslot({ passphrase });
    await vault.unlockWith(opening, mentions, ({ plaintext }) => plaintext.fill(0));
    opening.wipe();
  } finally {
    vault.close();
  }
}
