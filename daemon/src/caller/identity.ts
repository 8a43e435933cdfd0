/**
 * Who is calling, read from the kernel and never claimed.
 * uid, gid, pid and groups are those at connect() (SO_PEERCRED, SO_PEERGROUPS, unix(7)).
 */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly pid?: number;
  /** Name of the system unit that the caller runs in, when it is a service; undefined until units are known to the agent. */
  service(): string | undefined;
}
