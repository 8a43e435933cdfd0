import { secureHeapUsed } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { url as inspectorUrl } from 'node:inspector';
import { getSystemErrorName } from 'node:util';
import { canCollectGarbage, overwritesFreedMemory, restoreTunables } from './garbage.ts';
import { forbidInspection, isInspectable, tryToLockMemory } from './libc.ts';
import { readLimit, readPtraceScope, readStatusField } from './proc.ts';
import { findSwap } from './swap.ts';

/** A protection of the process, read from the process itself and never assumed. */
export interface Protection {
  readonly name: string;
  readonly on: boolean;
  /** What it does; where it is off, what is wrong and how to mend it. */
  readonly detail: string;
}

const privateMask = 0o077;
let inheritedMask = privateMask;

/** Runs what is somebody else's, such as the command of `dev`, under the mask that this process was started with. */
export function withInheritedMask<T>(work: () => T): T {
  process.umask(inheritedMask);
  try {
    return work();
  } finally {
    process.umask(privateMask);
  }
}

/** Protects the process before any key is in its memory. SIGUSR1 would open Node's debugger; a listener of our own keeps it shut. */
export function protectProcess(): void {
  forbidInspection();
  process.on('SIGUSR1', () => undefined);
  inheritedMask = process.umask(privateMask);
  restoreTunables();
}

/** Variables that change what runs with the keys; the bin refuses them. */
const refusedVariables = ['NODE_OPTIONS', 'OPENSSL_CONF', 'LD_PRELOAD'];

/**
 * A descriptor of /proc/PID/mem that is opened between execve(2) and prctl(2) stays good. There is no such time when the kernel makes the process undumpable
 * itself, because its user cannot read the program (fs/exec.c, would_dump), or when Yama asks who is the parent (Documentation/admin-guide/LSM/Yama).
 */
function couldNeverBeOpened(): boolean {
  if (process.geteuid?.() === 0) return true; // nobody but root may, and root may always
  return !canReadOwnProgram() || readPtraceScope() >= 1;
}

function canReadOwnProgram(): boolean {
  try {
    accessSync(process.execPath, constants.R_OK);
    return true;
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'EACCES'); // of one that is gone nobody knows what it was
  }
}

const own = 'start the agent with its own program, kms-agent, which sees to it';

/** One look at one protection: `what` it does, whether it is on, and what to say where it is not. */
type Look = () => { readonly on: boolean; readonly what: string; readonly wrong: string; readonly mend: string };

/** Why the secure heap is not locked: OpenSSL, which locks it, tells nobody. */
function whyUnlocked(lockedBytes: number, total: number): { readonly wrong: string; readonly mend: string } {
  const { soft } = readLimit('Max locked memory');
  const locked = `${lockedBytes} bytes are locked, and the limit is ${soft}`;
  if (soft < total) return { wrong: locked, mend: 'allow 8 MiB of locked memory: LimitMEMLOCK=8M in the unit, or ulimit -l 8192' };
  const errno = tryToLockMemory();
  if (errno === 0) return { wrong: `${locked}; mlock(2) works now`, mend: 'restart the agent' };
  const mend = 'allow the system call mlock, which a filter forbids, such as that of a container (@memlock for systemd)';
  return { wrong: `${locked}, but mlock(2) is refused with ${getSystemErrorName(-errno)}`, mend };
}

const looks: Readonly<Record<string, Look>> = {
  notInspectable: () => ({
    on: !isInspectable(),
    what: 'PR_SET_DUMPABLE 0: no other process of this user reads the memory or attaches',
    wrong: 'other processes of this user can read the memory',
    mend: own,
  }),
  shutFromTheStart: () => ({
    on: couldNeverBeOpened(),
    what: 'no other process of this user could open the memory before PR_SET_DUMPABLE 0 held, and keep it open',
    wrong: 'a process of this user that watched the start could open the memory before it was shut, and then reads it for good',
    mend: 'run the agent that kms-agent install --system sets up, whose Node its user cannot read; or sysctl kernel.yama.ptrace_scope=1',
  }),
  notTraced: () => {
    const tracer = readStatusField('TracerPid');
    return {
      on: tracer === '0',
      what: 'no debugger is attached',
      wrong: `process ${tracer} is attached and reads every key`,
      mend: `end it and restart the agent`,
    };
  },
  noCore: () => {
    const { soft, hard } = readLimit('Max core file size');
    return { on: hard === 0 && !isInspectable(), what: 'no core is written', wrong: `a core of ${soft} bytes may be written`, mend: own };
  },
  debuggerOff: () => {
    const isShut = process.execArgv.includes('--disable-sigusr1') || process.listenerCount('SIGUSR1') > 0;
    return { on: isShut && inspectorUrl() === undefined, what: 'SIGUSR1 opens no debugger', wrong: "Node's debugger is open, or SIGUSR1 opens it", mend: own };
  },
  cleanEnvironment: () => {
    const there = refusedVariables.filter((name) => process.env[name]);
    return {
      on: there.length === 0,
      what: 'no variable changes what runs with the keys',
      wrong: `${there.join(' and ')} is set`,
      mend: 'unset it and restart the agent',
    };
  },
  privateFiles: () => {
    const mask = readStatusField('Umask');
    return { on: mask === '0077', what: 'umask 077: what the agent makes is its own', wrong: `the umask is ${mask}`, mend: own };
  },
  secureHeap: () => {
    const { total, used } = secureHeapUsed();
    return {
      on: total > 0,
      what: `private numbers are kept apart: ${used} of ${total} bytes in use`,
      wrong: 'private numbers are among other memory',
      mend: own,
    };
  },
  secureHeapLocked: () => {
    const { total } = secureHeapUsed();
    const lockedBytes = Number.parseInt(readStatusField('VmLck') ?? '0', 10) * 1024;
    const on = lockedBytes >= Math.max(total, 1);
    return { on, what: 'private numbers are never swapped', ...(on ? { wrong: '', mend: '' } : whyUnlocked(lockedBytes, total)) };
  },
  noSwap: () => {
    const devices = findSwap();
    return {
      on: devices.length === 0,
      what: 'nothing of the agent is swapped',
      wrong: `the machine may swap keys to ${devices.join(', ')}`,
      mend: 'MemorySwapMax=0 in the unit, or swapoff -a; or use a swap that is encrypted',
    };
  },
  garbageCollection: () => ({
    on: canCollectGarbage(),
    what: 'lock collects what it dropped',
    wrong: 'what lock drops stays in memory for a while',
    mend: own,
  }),
  freedMemoryOverwritten: () => ({
    on: overwritesFreedMemory(),
    what: 'free(3) overwrites',
    wrong: 'free(3) leaves what it takes back',
    mend: `${own}, on a system with the GNU C library`,
  }),
};

/** What really holds now. */
export function readProtections(): Protection[] {
  return Object.entries(looks).map(([name, look]) => {
    const { on, what, wrong, mend } = look();
    return { name, on, detail: on ? what : `${wrong}. To mend it: ${mend}.` };
  });
}
