import { readFileSync, statSync } from 'node:fs';
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

/** Another text once the credential may have another content; undefined when there is none of that name. */
export function credentialVersion(name: string): string | undefined {
  const folder = process.env['CREDENTIALS_DIRECTORY'];
  const stats = folder === undefined ? undefined : statSync(join(folder, name), { bigint: true, throwIfNoEntry: false });
  return stats && [stats.dev, stats.ino, stats.ctimeNs, stats.size].join();
}
