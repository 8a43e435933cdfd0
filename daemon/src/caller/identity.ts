/** A systemd unit: one of the system, or one of the user's own manager, whose name any user can choose. */
export interface Unit {
  readonly scope: 'system' | 'user';
  /** For example `nginx.service`. */
  readonly name: string;
}

/** A file by what the kernel calls it, whatever its path is. */
export interface FileId {
  readonly device: bigint;
  readonly inode: bigint;
}

/** What was asked for could not be read: the process is gone, or it may not be looked at. */
export type Unknown = 'unknown';

/** What /proc says of a caller's process, read when somebody asks for it. */
export interface ProcessFacts {
  /** Undefined for a process in no unit. */
  unit(): Unit | undefined | Unknown;
  executable(): FileId | Unknown;
  /** The path of the executable, for people to read: a user namespace can forge it, so that nothing is decided by it. */
  executablePath(): string | undefined;
  /** What was asked for and could be read, for the record. */
  seen(): { readonly unit?: string; readonly exe?: string };
}

/** Whose turn it is where many wait: a user's, and of those of one user a connection's. */
export interface Asker {
  readonly uid: number;
  /** Counts the connections of this agent. */
  readonly connection: number;
}

/**
 * Who is calling, read from the kernel and never claimed.
 * uid, gid, pid and groups are those at connect() (SO_PEERCRED, SO_PEERGROUPS, unix(7)).
 */
export interface Caller extends Asker {
  readonly gid: number;
  readonly groups: readonly number[];
  readonly pid?: number;
  /** Facts of the process as it is during this request, each read at most once. */
  readonly process: ProcessFacts;
}

/** Somebody who is connected; each request is made by a caller of its own, because a process can become another by exec. */
export interface Peer {
  caller(): Caller;
}

/** A unit as people write it: `nginx.service`, `user-unit:editor.service`. */
export const formatUnit = ({ scope, name }: Unit): string => (scope === 'system' ? name : `user-unit:${name}`);

/** A system service, which has a key of its own. */
export interface Service {
  /** Its unit, for example `nginx.service`. */
  readonly name: string;
}

/** The service that a caller is; undefined for everybody else. */
export function serviceOf({ process }: Caller): Service | undefined | Unknown {
  const unit = process.unit();
  if (unit === 'unknown' || unit === undefined) return unit;
  return unit.scope === 'system' && unit.name.endsWith('.service') ? { name: unit.name } : undefined;
}
