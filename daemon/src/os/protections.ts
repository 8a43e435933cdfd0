import { secureHeapUsed } from 'node:crypto';
import { forbidInspection, isInspectable } from './libc.ts';

/** A protection of the process, read from the process itself and never assumed. */
export interface Protection {
  readonly name: string;
  readonly on: boolean;
  readonly detail?: string;
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
  inheritedMask = process.umask(privateMask);
  process.on('SIGUSR1', () => undefined);
  forbidInspection();
}

/** What really holds now. */
export function readProtections(): Protection[] {
  const heap = secureHeapUsed();
  return [
    { name: 'notInspectable', on: !isInspectable(), detail: 'PR_SET_DUMPABLE 0: other processes of the same user cannot read the memory' },
    { name: 'secureHeap', on: heap.total > 0, detail: `${heap.used} of ${heap.total} bytes in use` },
    { name: 'debuggerOff', on: process.execArgv.includes('--disable-sigusr1') || process.listenerCount('SIGUSR1') > 0, detail: 'SIGUSR1 opens no debugger' },
    { name: 'garbageCollection', on: globalThis.gc !== undefined, detail: 'lock collects what it dropped' },
  ];
}
