import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Reads a file that may not be there. */
function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENODEV')) return undefined;
    throw error;
  }
}

/** Files and devices that the machine swaps to (proc(5), /proc/swaps). */
function swapDevices(root: string): string[] {
  const [, ...rows] = readFileSync(join(root, '/proc/swaps'), 'utf8').trimEnd().split('\n');
  return rows.map((row) => row.split(/\s/)[0] ?? row);
}

/** Where the version 2 cgroups are mounted (proc(5), mountinfo: the fifth field). */
function cgroupMount(root: string): string | undefined {
  const mounts = readFileSync(join(root, '/proc/self/mountinfo'), 'utf8').split('\n');
  return mounts.find((mount) => mount.includes(' - cgroup2 '))?.split(' ')[4];
}

/** Whether the cgroup of this process, or one above it, takes no swap (cgroups(7), memory.swap.max). */
function isKeptOutOfSwap(root: string): boolean {
  const mount = cgroupMount(root);
  const own = /^0::(\/.*)$/m.exec(readFileSync(join(root, '/proc/self/cgroup'), 'utf8'))?.[1];
  if (mount === undefined || own === undefined) return false;
  for (let path = own; ; path = dirname(path)) {
    if (readIfThere(join(root, mount, path, 'memory.swap.max'))?.trim() === '0') return true;
    if (path === '/') return false;
  }
}

/**
 * Where memory of this process may be swapped to; empty when nowhere.
 * @param root - of the file system.
 */
export function findSwap(root = '/'): string[] {
  const devices = swapDevices(root);
  return devices.length > 0 && isKeptOutOfSwap(root) ? [] : devices;
}
