import { closeSync, constants, existsSync, lstatSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { lockFile } from '../os/libc.ts';

/** A folder that no other agent can use until it is released. */
export interface FolderClaim {
  release(): void;
}

/** The vault's file. Nothing but SQLite ever opens it: closing any other descriptor of it would drop SQLite's locks. */
export function vaultPath(dataDir: string): string {
  return join(dataDir, 'vault.db');
}

/** Whether there is a vault in a folder. */
export function hasVault(dataDir: string): boolean {
  return existsSync(vaultPath(dataDir));
}

/** Makes the vault's file, empty and 0600 whatever the umask, before SQLite opens it. @returns its path. */
export function makeVaultFile(dataDir: string): string {
  closeSync(openSync(vaultPath(dataDir), constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600));
  return vaultPath(dataDir);
}

const conflict = (hint: string): AgentError => new AgentError('ERR_STATE_CONFLICT', { hint });

/** @throws AgentError `ERR_STATE_CONFLICT` for what is no plain file or folder of ours, or is open to others. */
function checkPrivate(path: string, kind: 'folder' | 'file'): void {
  const stat = lstatSync(path);
  if (kind === 'folder' ? !stat.isDirectory() : !stat.isFile()) throw conflict(`${path} is not a ${kind}.`);
  if (stat.uid !== process.getuid?.()) throw conflict(`${path} belongs to uid ${stat.uid}; it must belong to the agent's own user.`);
  if ((stat.mode & 0o077) !== 0) throw conflict(`${path} is open to other users; run: chmod ${kind === 'folder' ? '700' : '600'} ${path}`);
}

/**
 * Takes a folder for this process: 0700, `vault.lock` held with flock(2) until release or the end of the process.
 * @param expect - whether a vault must be there or must not.
 * @throws AgentError `ERR_ALREADY_EXISTS`, `ERR_NOT_INITIALIZED`, `ERR_STATE_CONFLICT`.
 */
export function claimFolder(dataDir: string, expect: 'new' | 'existing'): FolderClaim {
  if (expect === 'new') mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  else if (!hasVault(dataDir)) throw new AgentError('ERR_NOT_INITIALIZED');
  checkPrivate(dataDir, 'folder');
  if (expect === 'new' && hasVault(dataDir))
    throw new AgentError('ERR_ALREADY_EXISTS', { hint: `There is a vault in ${dataDir} already; nothing was changed.` });
  if (expect === 'existing') checkPrivate(vaultPath(dataDir), 'file');
  const fd = openSync(join(dataDir, 'vault.lock'), constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  if (lockFile(fd)) return { release: () => closeSync(fd) };
  closeSync(fd);
  throw conflict(`Another agent holds the vault in ${dataDir}; stop it first.`);
}
