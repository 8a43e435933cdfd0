import { readFileSync, readlinkSync, statSync } from 'node:fs';
import { type LivingPeer, livingPeer, peerCredentials, peerGroups } from '../os/peer.ts';
import { type Caller, type FileId, formatUnit, type Peer, type ProcessFacts, type Unit, type Unknown } from './identity.ts';
import { parseUnit } from './unit.ts';

/** Says what is known of the process that connected. */
export type ReadFacts = (process: LivingPeer) => ProcessFacts;

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

/** What /proc says of the process that connected, read when it is first asked for. Each request has one; most ask nothing. */
class ReadProcess implements ProcessFacts {
  readonly #process: LivingPeer;
  #unit: { readonly value: Unit | undefined | Unknown } | undefined;
  #executable: FileId | Unknown | undefined;
  #path: { readonly value: string | undefined } | undefined;

  constructor(process: LivingPeer) {
    this.#process = process;
  }

  unit(): Unit | undefined | Unknown {
    this.#unit ??= { value: readAlive(this.#process, (folder) => parseUnit(readFileSync(`${folder}/cgroup`, 'utf8'))) };
    return this.#unit.value;
  }

  executable(): FileId | Unknown {
    this.#executable ??= readAlive(this.#process, (folder) => identifyFile(`${folder}/exe`));
    return this.#executable;
  }

  executablePath(): string | undefined {
    this.#path ??= { value: this.#readPath() };
    return this.#path.value;
  }

  seen(): { unit?: string; exe?: string } {
    const unit = this.#unit?.value;
    const exe = this.#executable === undefined ? undefined : this.executablePath();
    return { ...(unit === undefined || unit === 'unknown' ? {} : { unit: formatUnit(unit) }), ...(exe === undefined ? {} : { exe }) };
  }

  #readPath(): string | undefined {
    const read = readAlive(this.#process, (folder) => ({ path: readlinkSync(`${folder}/exe`) })); // in an object: a file may be called unknown
    return read === 'unknown' ? undefined : read.path;
  }
}

/** What is known of a process by its number. */
export const readProcess: ReadFacts = (process) => new ReadProcess(process);

let connections = 0;

/** Reads who is at the other end of a connected Unix socket. @param fd - its descriptor, undefined once it is closed. @throws Error when the kernel does not say. */
export function readPeer(fd: () => number | undefined, readFacts: ReadFacts = readProcess): Peer {
  const connected = fd();
  if (connected === undefined) throw new TypeError('the socket has no descriptor');
  const { uid, gid, pid } = peerCredentials(connected);
  connections += 1;
  const known = { uid, gid, connection: connections, groups: peerGroups(connected), ...(pid > 0 ? { pid } : {}) };
  const process = livingPeer(fd, pid);
  return { caller: (): Caller => ({ ...known, process: readFacts(process) }) };
}
