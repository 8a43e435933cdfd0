import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Name of the systemd credential that opens a vault; also the name of its file in the credential store. */
export const rootCredential = 'kms-agent-root';

/** A credential that systemd gave to this service (systemd.exec(5), CREDENTIALS_DIRECTORY), less one line ending; undefined when there is none of that name. */
export function readCredential(name: string): Buffer | undefined {
  const folder = process.env['CREDENTIALS_DIRECTORY'];
  if (folder === undefined) return undefined;
  try {
    const bytes = readFileSync(join(folder, name));
    return bytes.at(-1) === 0x0a ? bytes.subarray(0, -1) : bytes;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
