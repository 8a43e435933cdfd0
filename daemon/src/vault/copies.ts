import { chmodSync, existsSync, renameSync, rmSync } from 'node:fs';
import { AgentError, type Keyslot } from '@kms-agent/protocol';
import { describeFinding } from './damage.ts';
import { Database } from './database.ts';
import { claimFolder, vaultPath } from './folder.ts';
import type { Mentions } from './inspection.ts';
import type { NewKeyslot, Secret } from './keyslots/index.ts';
import { parseRecoveryCode } from './keyslots/recovery.ts';
import { Vault, type VaultOptions } from './vault.ts';

/** Copies a database file whole, log included, into a new 0600 file that appears only when it is complete. */
async function copyDatabase(from: string, into: string, finish?: (copy: Database) => void): Promise<void> {
  const source = Database.open(from, { readOnly: true });
  const unfinished = `${into}.unfinished`;
  try {
    rmSync(unfinished, { force: true });
    await source.backup(unfinished);
    if (finish) finishCopy(unfinished, finish);
    chmodSync(unfinished, 0o600);
    renameSync(unfinished, into);
  } finally {
    source.close();
    rmSync(unfinished, { force: true });
  }
}

function finishCopy(path: string, finish: (copy: Database) => void): void {
  const copy = Database.open(path);
  finish(copy);
  copy.close(); // the last connection moves the log into the file
}

/**
 * Writes a consistent sealed copy of a vault, also while an agent uses it.
 * @throws AgentError `ERR_ALREADY_EXISTS`: no file is ever written over; `ERR_NOT_INITIALIZED`; `ERR_STORE_UNAVAILABLE`.
 */
export async function backupVault(dataDir: string, file: string): Promise<void> {
  if (!existsSync(vaultPath(dataDir))) throw new AgentError('ERR_NOT_INITIALIZED');
  if (existsSync(file)) throw new AgentError('ERR_ALREADY_EXISTS', { hint: `${file} is there already; nothing was written.` });
  await copyDatabase(vaultPath(dataDir), file);
}

/** Puts a backup in place, marked so that its use counts are not trusted. @throws AgentError `ERR_ALREADY_EXISTS` when there is a vault; `ERR_STORE_UNAVAILABLE` for a file that is none. */
export async function restoreVault(file: string, dataDir: string): Promise<void> {
  const claim = claimFolder(dataDir, 'new');
  try {
    await copyDatabase(file, vaultPath(dataDir), (copy) => copy.markRestored());
  } finally {
    claim.release();
  }
}

/** Makes a new root key and seals everything anew. @returns the new recovery code, and the slots that are gone. */
export async function rekeyVault(options: VaultOptions & { dataDir: string }, proof: Secret): Promise<{ recoveryCode: string; droppedKeyslots: Keyslot[] }> {
  const vault = Vault.open(options);
  try {
    return await vault.rekey(proof);
  } finally {
    vault.close();
  }
}

/** What salvage saved and what it could not. */
export interface SalvageReport {
  readonly saved: number;
  /** One line each. */
  readonly findings: readonly string[];
  readonly recoveryCode: string;
}

/** Opens what can be opened of a damaged vault and writes it to a new one, under the same passphrase, if that was the proof, and a new recovery code. The old one is not touched. */
export async function salvageVault(options: VaultOptions & { dataDir: string }, proof: Secret, newDataDir: string, mentions: Mentions): Promise<SalvageReport> {
  const damaged = Vault.open(options);
  try {
    const { findings, records } = await damaged.salvageWith(await damaged.openKeyslot(proof), mentions);
    const { dataDir: _, ...rest } = options;
    const byCode = parseRecoveryCode(proof.passphrase) !== undefined;
    const slots: NewKeyslot[] = byCode ? [{ type: 'recovery' }] : [{ type: 'passphrase', passphrase: proof.passphrase }, { type: 'recovery' }];
    const { vault, recoveryCode = '' } = await Vault.create({ ...rest, dataDir: newDataDir, slots });
    vault.commit(records);
    vault.markRestored(); // what was saved may be older than it was
    vault.close();
    for (const { plaintext } of records) plaintext.fill(0);
    return { saved: records.length, findings: findings.map(describeFinding), recoveryCode };
  } finally {
    damaged.close();
  }
}
