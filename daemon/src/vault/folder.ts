import { closeSync, constants, existsSync, fsyncSync, linkSync, lstatSync, mkdirSync, openSync, rmSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AgentError, isAgentError } from '@kms-agent/protocol';
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

/** Does something with files; what the system refuses is told in the words of the protocol, with a hint for the command line. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
function withFiles<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (isAgentError(cause) || !(cause instanceof Error && 'syscall' in cause)) throw cause;
    throw new AgentError('ERR_STORE_UNAVAILABLE', { hint: cause.message }, { cause });
  }
}

/** Makes a file, empty and 0600 whatever the umask, in which SQLite builds what will be `path`. @returns its path for now. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
export function startFile(path: string): string {
  removeUnfinished(path);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  withFiles(() => closeSync(openSync(unfinishedPath(path), flags, 0o600)));
  return unfinishedPath(path);
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
 * @throws AgentError `ERR_ALREADY_EXISTS`, `ERR_NOT_INITIALIZED`, `ERR_STATE_CONFLICT`, `ERR_STORE_UNAVAILABLE`.
 */
export function claimFolder(dataDir: string, expect: 'new' | 'existing'): FolderClaim {
  return withFiles(() => claim(dataDir, expect));
}

function claim(dataDir: string, expect: 'new' | 'existing'): FolderClaim {
  if (expect === 'new') mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  else if (!hasVault(dataDir)) throw new AgentError('ERR_NOT_INITIALIZED');
  checkPrivate(dataDir, 'folder');
  if (expect === 'new') checkEmpty(dataDir);
  else checkPrivate(vaultPath(dataDir), 'file');
  const fd = openSync(join(dataDir, 'vault.lock'), constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    if (!lockFile(fd)) throw conflict(`Another agent holds the vault in ${dataDir}; stop it first.`);
    if (expect === 'new') checkEmpty(dataDir); // one may have come while we waited for nobody
    return { release: () => closeSync(fd) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** SQLite would play a log that another vault left behind over a new file. */
function checkEmpty(dataDir: string): void {
  const left = ['', '-wal', '-shm', '-journal'].map((end) => vaultPath(dataDir) + end).find((path) => existsSync(path));
  if (left === undefined) return;
  const what =
    left === vaultPath(dataDir) ? `There is a vault in ${dataDir} already` : `${left} is left of another vault; move it away together with its vault.db`;
  throw new AgentError('ERR_ALREADY_EXISTS', { hint: `${what}; nothing was changed.` });
}

/** Where a vault is built before it gets its name. */
export function unfinishedPath(path: string): string {
  return `${path}.unfinished`;
}

/**
 * Gives a whole and closed file its name, durably, and never over one that is there. One whose name is not durable is taken back: it was not acknowledged.
 * @throws AgentError `ERR_ALREADY_EXISTS`, `ERR_STORE_UNAVAILABLE`.
 */
export function nameFinished(path: string): void {
  withFiles(() => {
    linkNew(unfinishedPath(path), path);
    try {
      unlinkSync(unfinishedPath(path));
      syncFolder(dirname(path));
    } catch (error) {
      rmSync(path, { force: true });
      throw error;
    }
  });
}

function linkNew(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'EEXIST')) throw cause;
    throw new AgentError('ERR_ALREADY_EXISTS', { hint: `${to} is there already; nothing was written.` }, { cause });
  }
}

/** Makes the names in a folder durable (fsync(2)). */
function syncFolder(folder: string): void {
  const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Removes what an attempt that failed or was killed has left of a file that was being built. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
export function removeUnfinished(path: string): void {
  for (const end of ['', '-wal', '-shm', '-journal']) withFiles(() => rmSync(unfinishedPath(path) + end, { force: true }));
}
