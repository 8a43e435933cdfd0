import { findDifference, hasMoved, list, listPassedOver, readTogether } from './archive.ts';
import { Check, type Verification, type VerifyOptions } from './check.ts';
import type { ReadLine } from './reading.ts';

/** Checks the record in a folder, with archives of it, from its first line to its last. */
export async function verifyAudit(folder: string, options: VerifyOptions): Promise<Verification> {
  const { archives = [] } = options;
  const passedOver = listPassedOver(archives);
  const result = await verifyFiles(folder, archives, new Check(options));
  return passedOver.length === 0 ? result : { ...result, passedOver };
}

async function verifyFiles(folder: string, archives: readonly string[], check: Check): Promise<Verification> {
  const difference = await findDifference(folder, archives);
  if (difference) return check.stop({ ...difference, what: 'differs' });
  for await (const line of readTogether(folder, archives)) if (!check.take(line)) return check.result();
  return check.finish();
}

/** Checks lines that were read already. */
export function verifyLines(lines: Iterable<ReadLine>, options: VerifyOptions): Verification {
  const check = new Check(options);
  for (const line of lines) if (!check.take(line)) return check.result();
  return check.finish();
}

/** What the vault says of the record. */
export type Known = Pick<VerifyOptions, 'startKey' | 'remembered'>;

/** How a record is checked that an agent writes meanwhile, and whose files are moved. */
export interface VerifyBesideOptions extends Pick<VerifyOptions, 'archives' | 'onProgress'> {
  /** Asks the vault once more; its keys are wiped after use. */
  readonly readKnown: () => Promise<Known>;
}

/** Looks that are had at a record that is never still; the last one counts. */
const mostLooks = 10;

/**
 * Checks the record as verifyAudit, and once more when it was found wrong and files went or came meanwhile: the agent deletes the oldest, and whoever keeps the
 * archive moves others. What the agent deleted before the files were listed the vault knows when it is asked after that.
 */
export async function verifyBeside(folder: string, { archives = [], onProgress, readKnown }: VerifyBesideOptions): Promise<Verification> {
  for (let looks = 1; ; looks += 1) {
    const isLast = looks === mostLooks;
    const before = list(folder, archives);
    const known = await readKnown();
    const options = { ...known, archives, ...(onProgress ? { onProgress } : {}) };
    const result = await whenThere(verifyAudit(folder, options), isLast).finally(() => wipe(known));
    if (result && (result.ok || isLast || !hasMoved(before, list(folder, archives)))) return result;
  }
}

/** Undefined where a file was gone when it was to be read, unless this is the last look. */
async function whenThere(verifying: Promise<Verification>, isLast: boolean): Promise<Verification | undefined> {
  try {
    return await verifying;
  } catch (error) {
    if (!isLast && error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function wipe({ startKey, remembered }: Known & { remembered?: { key?: Uint8Array } }): void {
  for (const key of [startKey, remembered?.key]) key?.fill(0);
}
