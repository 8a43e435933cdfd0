import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = join(process.env['KMS_AGENT_VECTORS'] ?? fileURLToPath(new URL('../../../shared/vectors', import.meta.url)), 'wycheproof');

/** Whether the Wycheproof files are here; KMS_AGENT_VECTORS says where else to look. */
export const haveVectors = existsSync(folder);

/** One case of a Wycheproof file; the fields differ from file to file. */
export interface VectorCase {
  readonly tcId: number;
  readonly comment: string;
  readonly flags: readonly string[];
  readonly result: 'valid' | 'invalid' | 'acceptable';
  readonly [field: string]: unknown;
}

/** Cases that share a key. */
export interface VectorGroup {
  readonly tests: readonly VectorCase[];
  readonly [field: string]: unknown;
}

/** Reads a file of vectors. */
export function readVectors(name: string): readonly VectorGroup[] {
  return (JSON.parse(readFileSync(join(folder, name), 'utf8')) as { testGroups: VectorGroup[] }).testGroups;
}

/** Bytes of a field in hex. */
export function hex(value: unknown): Uint8Array {
  if (typeof value !== 'string') throw new TypeError('the vector has no hex where hex belongs');
  return new Uint8Array(Buffer.from(value, 'hex'));
}
