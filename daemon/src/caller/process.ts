import { readFileSync, readlinkSync, statSync } from 'node:fs';
import { type LivingPeer, livingPeer, peerCredentials, peerGroups } from '../os/peer.ts';
import { type Caller, type FileId, formatUnit, type Peer, type ProcessFacts, type Unknown } from './identity.ts';
import { parseUnit } from './unit.ts';

/** Says what is known of the process that connected. */
export type ReadFacts = (process: LivingPeer) => ProcessFacts;

/** Something that is read when it is first asked for, and remembered. */
class Lazy<T> {
  readonly #read: () => T;
  #answer: { readonly value: T } | undefined;

  constructor(read: () => T) {
    this.#read = read;
  }

  get = (): T => {
    this.#answer ??= { value: this.#read() };
    return this.#answer.value;
  };

  get wasAsked(): boolean {
    return this.#answer !== undefined;
  }
}

/** Reads something of a process between two proofs that it is still the one that connected. */
function readAlive<T>(process: LivingPeer, read: (folder: string) => T): T | Unknown {
  return process.whileAlive((pid) => {
    try {
      return read(`/proc/${pid}`);
    } catch {
      return 'unknown'; // EACCES: another user's process; ENOENT, ESRCH: it has just ended
    }
  });
}

/** The file that a path leads to. @throws Error as stat(2). */
export function identifyFile(path: string): FileId {
  const { dev, ino } = statSync(path, { bigint: true });
  return { device: dev, inode: ino };
}

/** What /proc says of the process that connected, read when it is first asked for. */
export const readProcess: ReadFacts = (process) => {
  const unit = new Lazy(() => readAlive(process, (folder) => parseUnit(readFileSync(`${folder}/cgroup`, 'utf8'))));
  const executable = new Lazy(() => readAlive(process, (folder) => identifyFile(`${folder}/exe`)));
  const executablePath = new Lazy(() => {
    const path = readAlive(process, (folder) => ({ path: readlinkSync(`${folder}/exe`) }));
    return path === 'unknown' ? undefined : path.path;
  });
  const seenUnit = (): object => {
    const known = unit.wasAsked ? unit.get() : undefined;
    return known === undefined || known === 'unknown' ? {} : { unit: formatUnit(known) };
  };
  const seenExecutable = (): object => {
    const exe = executable.wasAsked ? executablePath.get() : undefined;
    return exe === undefined ? {} : { exe };
  };
  return { unit: unit.get, executable: executable.get, executablePath: executablePath.get, seen: () => ({ ...seenUnit(), ...seenExecutable() }) };
};

/** Reads who is at the other end of a connected Unix socket. @param fd - its descriptor, undefined once it is closed. @throws Error when the kernel does not say. */
export function readPeer(fd: () => number | undefined, readFacts: ReadFacts = readProcess): Peer {
  const connected = fd();
  if (connected === undefined) throw new TypeError('the socket has no descriptor');
  const { uid, gid, pid } = peerCredentials(connected);
  const known = { uid, gid, groups: peerGroups(connected), ...(pid > 0 ? { pid } : {}) };
  const process = livingPeer(fd, pid);
  return { caller: (): Caller => ({ ...known, process: readFacts(process) }) };
}
