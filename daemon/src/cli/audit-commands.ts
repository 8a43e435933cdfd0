import { readSecret } from '@kms-agent/protocol/terminal';
import { decodeState } from '../audit/chain.ts';
import { type Verification, verifyAudit } from '../audit/verify.ts';
import { auditRecord } from '../keyring/witness.ts';
import { peekRecord } from '../vault/peek.ts';

/** Where to look, and how to ask and answer. */
export interface AuditVerifyOptions {
  readonly dataDir: string;
  readonly auditDir: string;
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

/** Checks the audit record with the secret of a keyslot, also beside a running agent. @returns whether it is whole. */
export async function auditVerify({ dataDir, auditDir, passphraseFd, json }: AuditVerifyOptions): Promise<boolean> {
  const passphrase = await readSecret('Passphrase or recovery code of the vault: ', passphraseFd);
  const { auditStartKey, plaintext } = await peekRecord(dataDir, { passphrase }, auditRecord);
  const remembered = plaintext && decodeState(plaintext);
  plaintext?.fill(0);
  const verification = await verifyAudit(auditDir, { startKey: auditStartKey, ...(remembered ? { remembered } : {}), onProgress: showProgress });
  for (const key of [auditStartKey, remembered?.key]) key?.fill(0);
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  process.stdout.write(json ? `${JSON.stringify(verification)}\n` : describeVerification(verification));
  return verification.ok;
}
