import koffi from 'koffi';

/** The calls of the C library that Node lacks. Linux only: the numbers are those of <sys/file.h>, <linux/prctl.h>. */
export const libc = koffi.load('libc.so.6');

const flock = libc.func('int flock(int fd, int operation)');
const prctl = libc.func('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)');
const setrlimit = libc.func('int setrlimit(int resource, uint64_t *limits)');

const lockExclusive = 2;
const lockNonBlocking = 4;
const prSetParentDeathSignal = 1;
const prSetDumpable = 4;
const prGetDumpable = 3;
const rlimitCore = 4;
const eWouldBlock = 11;

/** @throws Error with the errno and the call's name. */
function check(result: number, call: string): void {
  if (result === -1) throw new Error(`${call} failed with errno ${koffi.errno()}`);
}

/** Takes an exclusive flock(2) on an open file without waiting. @returns false when another process holds it. */
export function lockFile(fd: number): boolean {
  if (flock(fd, lockExclusive | lockNonBlocking) === 0) return true;
  if (koffi.errno() === eWouldBlock) return false;
  throw new Error(`flock failed with errno ${koffi.errno()}`);
}

/** Keeps other processes of the same user, and core dumps, away from this process's memory (prctl(2), PR_SET_DUMPABLE; setrlimit(2)). */
export function forbidInspection(): void {
  check(prctl(prSetDumpable, 0, 0, 0, 0), 'prctl(PR_SET_DUMPABLE)');
  check(setrlimit(rlimitCore, [0, 0]), 'setrlimit(RLIMIT_CORE)');
}

const sigKill = 9;

/** Ends this process with its parent, however it hangs (prctl(2), PR_SET_PDEATHSIG). @param parent - the pid that started it: it may be gone already. */
export function dieWithParent(parent: number): void {
  check(prctl(prSetParentDeathSignal, sigKill, 0, 0, 0), 'prctl(PR_SET_PDEATHSIG)');
  if (process.ppid !== parent) process.exit(0);
}

const exitNow = libc.func('void _exit(int status)');

/** Ends this process at once (_exit(2)). `process.exit` first waits for every call on the thread pool, for as long as each takes. */
export function leaveNow(status: number): void {
  exitNow(status);
}

/** Whether this process's memory can be read by other processes of the same user. */
export function isInspectable(): boolean {
  return prctl(prGetDumpable, 0, 0, 0, 0) !== 0;
}

const fcntl = libc.func('int fcntl(int fd, int command, int argument)');
const fSetFd = 2;

const fDupFdCloseOnExec = 1030;

/** Another descriptor of the same open file, for this process alone (fcntl(2), F_DUPFD_CLOEXEC). */
export function duplicateFd(fd: number): number {
  const copy = fcntl(fd, fDupFdCloseOnExec, 0);
  check(copy, 'fcntl(F_DUPFD_CLOEXEC)');
  return copy;
}

/** Lets an inherited descriptor outlive execve(2); Node marks every one but the first three close-on-exec when it starts. */
export function keepAcrossExec(fd: number): void {
  check(fcntl(fd, fSetFd, 0), 'fcntl(F_SETFD)');
}

const mlock = libc.func('int mlock(const uint8_t *address, size_t length)');
const munlock = libc.func('int munlock(const uint8_t *address, size_t length)');

/** Tries mlock(2) on a page of no importance. @returns the errno of the refusal; 0 where it is allowed. */
export function tryToLockMemory(): number {
  const page = Buffer.alloc(4096);
  if (mlock(page, page.length) !== 0) return koffi.errno();
  munlock(page, page.length);
  return 0;
}
