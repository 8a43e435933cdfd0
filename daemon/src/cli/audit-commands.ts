import { readSecret } from '@kms-agent/protocol/terminal';
import { decodeState } from '../audit/chain.ts';
import { type Verification, verifyAudit } from '../audit/verify.ts';
import { auditRecord } from '../keyring/witness.ts';
import { peekRecord } from '../vault/peek.ts';

/** Where to look, and how to ask and answer. */
export interface AuditVerifyOptions {
  readonly dataDir: string;
  readonly auditDir: string;
  /** Folders with files of the record that were moved away. */
  readonly archives: readonly string[];
  readonly passphraseFd?: number;
  readonly json?: boolean;
}

const words: Readonly<Record<NonNullable<Verification['finding']>['what'], string>> = {
  changed: 'was changed',
  dropped: 'is missing',
  swapped: 'was swapped with another',
  duplicated: 'is there twice',
  cutOff: 'and what came after it were cut off',
  forged: 'is a checkpoint that this vault did not make',
  differs: 'begins a file that is there twice, and not the same',
};

/** What was found, for a person. */
export function describeVerification({ finding, records, firstSeq = 0, lastSeq = 0, checkpoints, unkeyed }: Verification): string {
  if (finding) return `BROKEN: record ${finding.seq} ${words[finding.what]}${finding.file === undefined ? '' : ` (${finding.file})`}.\n`;
  if (records === 0) return 'The audit record is empty.\n';
  const waiting = unkeyed === 0 ? '' : ` The last ${unkeyed} are chained and wait for the next checkpoint.`;
  return `ok: ${records} records, ${firstSeq} to ${lastSeq}, proven by ${checkpoints} checkpoints.${waiting}\n`;
}

/** One line on a terminal that is written over and over. */
function showProgress(records: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${records.toLocaleString('en')} records checked`);
}

/** Looks at the record as often as the agent deletes old files of it meanwhile: what the vault then says of them is the newest. */
const mostLooks = 10;

/** What the vault says of the record: the start key, and where it remembers the chain. */
type Known = Parameters<typeof verifyAudit>[1];

async function readKnown(dataDir: string, passphrase: string): Promise<Known> {
  const { auditStartKey, plaintext } = await peekRecord(dataDir, { passphrase }, auditRecord);
  const remembered = plaintext && decodeState(plaintext);
  plaintext?.fill(0);
  return { startKey: auditStartKey, ...(remembered ? { remembered } : {}) };
}

function wipe({ startKey, remembered }: Known & { remembered?: { key?: Uint8Array } }): void {
  for (const key of [startKey, remembered?.key]) key?.fill(0);
}

/** Checks the audit record with the secret of a keyslot, also beside a running agent. @returns whether it is whole. */
export async function auditVerify({ dataDir, auditDir, archives, passphraseFd, json }: AuditVerifyOptions): Promise<boolean> {
  const passphrase = await readSecret('Passphrase or recovery code of the vault: ', passphraseFd);
  let known = await readKnown(dataDir, passphrase);
  let verification = await verifyAudit(auditDir, { ...known, archives, onProgress: showProgress });
  for (let looks = 1; verification.finding?.what === 'dropped' && looks < mostLooks; looks += 1) {
    const droppedSeq = known.remembered?.droppedSeq;
    wipe(known);
    known = await readKnown(dataDir, passphrase);
    if (known.remembered?.droppedSeq === droppedSeq) break; // nothing was deleted by the agent: it is missing
    verification = await verifyAudit(auditDir, { ...known, archives, onProgress: showProgress });
  }
  wipe(known);
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  process.stdout.write(json ? `${JSON.stringify(verification)}\n` : describeVerification(verification));
  return verification.ok;
}
