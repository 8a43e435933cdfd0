import { closeSync, readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import koffi from 'koffi';
import { libc } from './libc.ts';

const getsockopt = libc.func('int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint32_t *length)');
const poll = libc.func('int poll(uint8_t *fds, unsigned long count, int timeout)');

// <asm-generic/socket.h>, <asm-generic/errno.h>, <poll.h>
const solSocket = 1;
const soPeerCred = 17;
const soPeerGroups = 59;
const soPeerPidFd = 77;
const eNoProtocolOption = 92;
const pollIn = 1;
const eInterrupted = 4;

/** @throws Error with the errno and the call's name. */
function check(result: number, call: string): void {
  if (result === -1) throw new Error(`${call} failed with errno ${koffi.errno()}`);
}

/** Credentials of a peer as the kernel took them at connect() (unix(7), SO_PEERCRED). */
export interface PeerCredentials {
  /** 0 for a process that this one's namespace does not know. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Reads who connected to a Unix socket. @throws Error when `fd` is no such socket. */
export function peerCredentials(fd: number): PeerCredentials {
  const value = Buffer.alloc(12);
  check(getsockopt(fd, solSocket, soPeerCred, value, [value.length]), 'getsockopt(SO_PEERCRED)');
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/** Most supplementary groups that a process can have (NGROUPS_MAX). */
const maxGroups = 65_536;

/** Reads the supplementary groups of the peer (unix(7), SO_PEERGROUPS). */
export function peerGroups(fd: number): number[] {
  let value = Buffer.alloc(4 * 64);
  let length = [value.length];
  if (getsockopt(fd, solSocket, soPeerGroups, value, length) === -1) {
    value = Buffer.alloc(4 * maxGroups); // ERANGE: more than 64 groups
    length = [value.length];
    check(getsockopt(fd, solSocket, soPeerGroups, value, length), 'getsockopt(SO_PEERGROUPS)');
  }
  return Array.from({ length: (length[0] ?? 0) / 4 }, (_, index) => value.readUInt32LE(4 * index));
}

/** The process that connected, for as long as it lives. */
export interface LivingPeer {
  /** Runs `read` with its pid, if the process that connected was alive before and is alive after; a pid that was given to another one proves nothing. */
  whileAlive<T>(read: (pid: number) => T): T | 'unknown';
}

/** A descriptor of the process that connected (pidfd_open(2); SO_PEERPIDFD, Linux 6.5), undefined where the kernel has none for a process that is gone. @returns 'absent' on an older kernel. */
function openPidFd(fd: number): number | undefined | 'absent' {
  const value = Buffer.alloc(4);
  if (getsockopt(fd, solSocket, soPeerPidFd, value, [value.length]) === 0) return value.readInt32LE(0);
  return koffi.errno() === eNoProtocolOption ? 'absent' : undefined;
}

/** Whether the process behind a pidfd runs: it becomes readable when the process ends. */
function isRunning(pidFd: number): boolean {
  const request = Buffer.alloc(8);
  request.writeInt32LE(pidFd, 0);
  request.writeInt16LE(pollIn, 4);
  for (;;) {
    const ready = poll(request, 1, 0);
    if (ready !== -1 || koffi.errno() !== eInterrupted) return ready === 0; // a signal of ours (SIGTERM, SIGHUP, SIGCHLD) says nothing about the caller
  }
}

/** Ticks of the kernel in a second, as /proc counts them; fixed at 100 in its interface (proc(5), USER_HZ). */
const ticksPerSecond = 100;
/** A number of seconds as a double times that number may fall short of the tick that it is: 0.29 * 100 < 29. */
const roundingTicks = 0.001;

/** When a process started, in ticks since the machine did; undefined when it is gone. Field 22 of /proc/PID/stat, whose second may hold anything. */
function startTicks(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  } catch {
    return undefined; // ENOENT, ESRCH
  }
}

/** For kernels without SO_PEERPIDFD: a process that started after the connection was accepted is another one. */
export function livingByStartTime(pid: number, acceptedSeconds: number = uptime(), ticksOf = startTicks): LivingPeer {
  return {
    whileAlive: (read) => {
      const before = ticksOf(pid);
      if (before === undefined || before > acceptedSeconds * ticksPerSecond + roundingTicks) return 'unknown';
      const answer = read(pid);
      return ticksOf(pid) === before ? answer : 'unknown';
    },
  };
}

/** What tells that a process lives; a test has another. */
export interface LifeSource {
  readonly openPidFd: typeof openPidFd;
  readonly isRunning: typeof isRunning;
  readonly close: (pidFd: number) => void;
}

const kernel: LifeSource = { openPidFd, isRunning, close: closeSync };

/** @param fd - the connected socket's descriptor; it is asked at each use, because a closed one may belong to somebody else by then. */
export function livingPeer(fd: () => number | undefined, pid: number, source: LifeSource = kernel): LivingPeer {
  const byStartTime = livingByStartTime(pid);
  return {
    whileAlive: (read) => {
      const connected = fd();
      const pidFd = connected === undefined || pid === 0 ? undefined : source.openPidFd(connected);
      if (pidFd === 'absent') return byStartTime.whileAlive(read);
      if (pidFd === undefined) return 'unknown';
      try {
        if (!source.isRunning(pidFd)) return 'unknown';
        const answer = read(pid);
        return source.isRunning(pidFd) ? answer : 'unknown';
      } finally {
        source.close(pidFd);
      }
    },
  };
}
