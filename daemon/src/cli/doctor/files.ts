import { closeSync, constants, lstatSync, openSync, type Stats, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { systemSocketPath } from '@kms-agent/protocol';
import { listFiles, readLast } from '../../audit/files.ts';
import { findUserId } from '../../os/users.ts';
import { serviceUser, systemPlaces } from '../install/host.ts';
import { wrong } from './finding.ts';

const octal = (mode: number): string => (mode & 0o7777).toString(8).padStart(4, '0');

/** lstat(2); undefined for what is not there. */
const statOf = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false });

/**
 * Checks that a folder or file is somebody's alone.
 * @param uid - whose it must be; anybody's when it is not given.
 * @throws WrongError that names the command that mends it.
 */
function requirePrivate(path: string, kind: 'folder' | 'file', uid?: number): Stats {
  const stat = lstatSync(path);
  if (kind === 'folder' ? !stat.isDirectory() : !stat.isFile()) throw wrong(`${path} is not a ${kind}`, `move it away, and start the agent again`);
  if (uid !== undefined && stat.uid !== uid) throw wrong(`${path} belongs to uid ${stat.uid}, and not to uid ${uid}`, `chown ${uid} ${path}`);
  if ((stat.mode & 0o077) !== 0) throw wrong(`${path} is open to other users, mode ${octal(stat.mode)}`, `chmod ${kind === 'folder' ? '700' : '600'} ${path}`);
  return stat;
}

const ofSystem: ReadonlySet<string> = new Set([systemPlaces.dataDir, systemPlaces.auditDir]);

/** Whose a folder of the agent must be: the system's is its own user's, whoever asks; else the user's who asks, but root asks for others too. */
function expectedOwner(folder: string): number | undefined {
  if (ofSystem.has(folder)) return findUserId(serviceUser);
  return process.geteuid?.() === 0 ? undefined : process.geteuid?.();
}

/** SQLite's files and the lock beside the vault: as private as the vault, where they are there. */
const besideVault = ['vault.db', 'vault.db-wal', 'vault.db-shm', 'vault.lock'];

/** The folder of the vault and what is in it. */
export function lookAtVault(dataDir: string): string {
  if (!statOf(dataDir) || !statOf(join(dataDir, 'vault.db'))) return `there is none in ${dataDir} yet; kms-agent init makes one`;
  const { uid } = requirePrivate(dataDir, 'folder', expectedOwner(dataDir));
  for (const name of besideVault) if (statOf(join(dataDir, name))) requirePrivate(join(dataDir, name), 'file', uid);
  return `${join(dataDir, 'vault.db')}, ${lstatSync(join(dataDir, 'vault.db')).size} bytes, of uid ${uid} alone`;
}

/** The folder of the audit record and what is in it. */
export function lookAtAuditFolder(auditDir: string): string {
  if (!statOf(auditDir)) return `there is none in ${auditDir} yet; the agent makes it`;
  const { uid } = requirePrivate(auditDir, 'folder', expectedOwner(auditDir));
  const files = listFiles(auditDir);
  for (const file of files) requirePrivate(file, 'file', uid);
  return `${auditDir}, ${files.length} ${files.length === 1 ? 'file' : 'files'}, of uid ${uid} alone`;
}

/** Opens what is written next as the agent does, and leaves it as it is. */
function tryToAppend(file: string): void {
  try {
    closeSync(openSync(file, constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_NONBLOCK));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'an error';
    throw wrong(`${file} cannot be written: ${code}`, 'see that its file system is writable and that the file has no immutable flag');
  }
}

/** Whether records could be written while no agent does it, and where the record ends. @param reserveBytes - of the settings. */
export function lookAtAuditRecord(auditDir: string, reserveBytes: number): string {
  if (!statOf(auditDir)) return 'nothing was recorded yet';
  const { bavail, bsize } = statfsSync(auditDir);
  const isReserved = statOf(join(auditDir, 'reserve'))?.size === reserveBytes;
  if (!isReserved && bavail * bsize < reserveBytes)
    throw wrong(`${auditDir} has ${bavail * bsize} bytes left, and requests are refused when they cannot be recorded`, 'make room there');
  const newest = listFiles(auditDir).at(-1);
  if (newest === undefined) return 'nothing was recorded yet';
  tryToAppend(newest);
  if (statSync(newest).size === 0) return `${newest} was begun`;
  const last = readLast(newest)?.record;
  if (!last) throw wrong(`${newest} does not end in a record`, 'kms-agent audit verify names what is broken');
  return `can be written; record ${last.seq} of ${last.time} is the last`;
}

/** Whose a vault is; undefined where there is none. */
const ownerOf = (dataDir: string): number | undefined => statOf(dataDir)?.uid;

/** Who may connect: connect(2) asks for the right to write to the socket. Nothing is wrong with that, whoever it is. */
function whoConnects(path: string, { mode, uid, gid }: { mode: number; uid: number; gid: number }): string {
  if ((mode & 0o002) !== 0)
    return `everybody who can enter ${dirname(path)} may connect: policies say who uses a key, but whoever connects makes records (auditMaxTotalBytes) and holds connections, up to maxConnectionsPerUid and maxConnections`;
  const group = (mode & 0o020) === 0 ? '' : `, group ${gid}`;
  return `uid ${uid}${group} and root may connect`;
}

/**
 * The socket, and the folder in which somebody else could put another one.
 * @param mode - of the settings; that of a socket which systemd made is its unit's affair.
 */
export function lookAtSocket(path: string, mode: number, dataDir: string): string {
  const stat = statOf(path);
  if (!stat) return `there is none at ${path}; the agent makes it`;
  if (!stat.isSocket()) throw wrong(`${path} is no socket, and the agent does not start over it`, 'move it away');
  const owner = ownerOf(dataDir) ?? process.geteuid?.() ?? 0;
  if (stat.uid !== owner && stat.uid !== 0)
    throw wrong(`${path} belongs to uid ${stat.uid}, who is neither root nor the agent's user`, 'find out who listens there, and remove it');
  if (path !== systemSocketPath && stat.uid === owner && (stat.mode & 0o777) !== mode)
    throw wrong(`${path} has mode ${octal(stat.mode)}, and the settings say ${octal(mode)}`, `chmod ${octal(mode)} ${path}`);
  const folder = statSync(dirname(path));
  const isSticky = (folder.mode & 0o1000) !== 0;
  if ((folder.mode & 0o022) !== 0 && !isSticky)
    throw wrong(`others can put another socket in the place of ${path}: ${dirname(path)} has mode ${octal(folder.mode)}`, `chmod go-w ${dirname(path)}`);
  return `${path}, mode ${octal(stat.mode)}, of uid ${stat.uid}; ${whoConnects(path, stat)}`;
}
