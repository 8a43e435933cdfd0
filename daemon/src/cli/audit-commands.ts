import { readSecret } from '@kms-agent/protocol/terminal';
import { decodeState } from '../audit/chain.ts';
import type { Verification } from '../audit/check.ts';
import { type Known, verifyBeside } from '../audit/verify.ts';
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

/** Names of files that an answer for a person has room for. */
const namedFiles = 20;

/** What is not there and need not be, and what is there and was not read. */
function describeRest({ gaps = [], passedOver = [] }: Verification): string {
  const gone = gaps.map(({ firstSeq, lastSeq, unproven }) => {
    const before = unproven === 0 ? '' : ` The ${unproven} before them are chained, and no checkpoint that is left proves them.`;
    return `Not here: records ${firstSeq} to ${lastSeq}, among those that the agent deleted, as the vault knows.${before}\n`;
  });
  const more = passedOver.length > namedFiles ? ` and ${passedOver.length - namedFiles} more` : '';
  const unread = passedOver.length === 0 ? '' : `Not read, because only files named *.jsonl are: ${passedOver.slice(0, namedFiles).join(', ')}${more}.\n`;
  return [...gone, unread].join('');
}

/** What was found, for a person. */
export function describeVerification(verification: Verification): string {
  const { finding, records, firstSeq = 0, lastSeq = 0, checkpoints, unkeyed } = verification;
  const rest = describeRest(verification);
  if (finding) return `BROKEN: record ${finding.seq} ${words[finding.what]}${finding.file === undefined ? '' : ` (${finding.file})`}.\n${rest}`;
  if (records === 0) return `The audit record is empty.\n${rest}`;
  const waiting = unkeyed === 0 ? '' : ` The last ${unkeyed} are chained and wait for the next checkpoint.`;
  return `ok: ${records} records, ${firstSeq} to ${lastSeq}, proven by ${checkpoints} checkpoints.${waiting}\n${rest}`;
}

/** One line on a terminal that is written over and over. */
function showProgress(records: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${records.toLocaleString('en')} records checked`);
}

async function readKnown(dataDir: string, passphrase: string): Promise<Known> {
  const { auditStartKey, plaintext } = await peekRecord(dataDir, { passphrase }, auditRecord);
  const remembered = plaintext && decodeState(plaintext);
  plaintext?.fill(0);
  return { startKey: auditStartKey, ...(remembered ? { remembered } : {}) };
}

/** Checks the audit record with the secret of a keyslot, also beside a running agent. @returns whether it is whole. */
export async function auditVerify({ dataDir, auditDir, archives, passphraseFd, json }: AuditVerifyOptions): Promise<boolean> {
  const passphrase = await readSecret('Passphrase or recovery code of the vault: ', passphraseFd);
  const readNow = (): Promise<Known> => readKnown(dataDir, passphrase);
  const verification = await verifyBeside(auditDir, { archives, onProgress: showProgress, readKnown: readNow });
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  process.stdout.write(json ? `${JSON.stringify(verification)}\n` : describeVerification(verification));
  return verification.ok;
}
