import { spawnSync } from 'node:child_process';
import { chmodSync, closeSync, existsSync, fsyncSync, linkSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { rootCredential } from './credentials.ts';

/** Where systemd looks for encrypted credentials that a unit names (systemd.exec(5), LoadCredentialEncrypted=). */
export const credentialStore = '/etc/credstore.encrypted';

/** What a credential is encrypted with (systemd-creds(1), --with-key=). */
export type CredentialKey = 'auto' | 'host' | 'tpm2' | 'host+tpm2';

const systemdCreds = 'systemd-creds';

/** @throws AgentError `ERR_STORE_UNAVAILABLE` with what systemd-creds complained of. */
function runSystemdCreds(args: readonly string[], input: string): string {
  const { status, stdout, stderr, error } = spawnSync(systemdCreds, args, { input, encoding: 'utf8' });
  if (status === 0) return stdout;
  throw new AgentError('ERR_STORE_UNAVAILABLE', { hint: `${systemdCreds} ${args[0]} failed: ${error?.message ?? stderr.trim()}` });
}

function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A credential that is made, and has not got its name yet. */
export interface NewCredential {
  readonly file: string;
  /** Gives it its name, durably; never over one that is there. */
  keep(): void;
  /** Takes away what has no name yet. */
  discard(): void;
}

/**
 * Encrypts the secret of a keyslot for this host, and proves that it can be read back.
 * @param folder - of the credential store.
 * @throws AgentError `ERR_ALREADY_EXISTS`: a credential is never written over; `ERR_STORE_UNAVAILABLE`.
 */
export function encryptRootCredential(secret: string, withKey: CredentialKey, folder: string = credentialStore): NewCredential {
  const file = join(folder, rootCredential);
  if (existsSync(file))
    throw new AgentError('ERR_ALREADY_EXISTS', { hint: `${file} is there already, and may be all that opens a vault; move it away if it is not wanted.` });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const unnamed = `${file}.new`;
  const discard = (): void => rmSync(unnamed, { force: true });
  discard(); // of an attempt that was cut off: it opens no keyslot
  try {
    runSystemdCreds(['encrypt', `--name=${rootCredential}`, `--with-key=${withKey}`, '-', unnamed], secret);
    if (runSystemdCreds(['decrypt', `--name=${rootCredential}`, unnamed, '-'], '') !== secret)
      throw new AgentError('ERR_STORE_UNAVAILABLE', { hint: `${systemdCreds} does not give back what it encrypted.` });
    chmodSync(unnamed, 0o600);
    syncPath(unnamed);
  } catch (error) {
    discard();
    throw error;
  }
  const keep = (): void => {
    linkSync(unnamed, file);
    discard();
    syncPath(dirname(file));
  };
  return { file, keep, discard };
}
