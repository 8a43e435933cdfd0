import { lstatSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { AgentError } from '@kms-agent/protocol';

const writableByGroup = 0o020;
const writableByAll = 0o002;
const sticky = 0o1000;

function checkOne(path: string, owners: ReadonlySet<number>): void {
  const stat = lstatSync(path);
  const isSharedFolder = stat.isDirectory() && (stat.mode & sticky) !== 0; // nobody else can take what is in it away
  const isOwnGroup = owners.size > 1 && stat.gid === process.getegid?.(); // many users have a group of their own, and a mask of 002
  const isOpen = (stat.mode & (isOwnGroup ? writableByAll : writableByAll | writableByGroup)) !== 0 && !isSharedFolder;
  if (owners.has(stat.uid) && !isOpen) return;
  const who = owners.size === 1 ? 'root' : 'root and you';
  throw new AgentError('ERR_STATE_CONFLICT', {
    hint: `${path} can be written by others than ${who} (owner ${stat.uid}, mode ${(stat.mode & 0o7777).toString(8)}); a key agent must not run from it.`,
  });
}

/**
 * Makes sure that only the owners, and root, can change what is at a path: the file itself and every folder above it.
 * @throws AgentError `ERR_STATE_CONFLICT` that names the one that others can write.
 */
export function checkTrusted(path: string, owner = 0): void {
  const owners = new Set([0, owner]);
  let current = realpathSync(path);
  for (;;) {
    checkOne(current, owners);
    const parent = dirname(current);
    if (parent === current) return;
    current = parent;
  }
}

/** The same of a file whose folders have been looked at. */
export function checkTrustedFile(path: string, owner = 0): void {
  checkOne(path, new Set([0, owner]));
}
