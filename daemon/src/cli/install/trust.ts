import { lstatSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { isOpenToOthers, isOurs } from '../../os/trust.ts';

function checkOne(path: string): void {
  const stat = lstatSync(path);
  if (isOurs(stat) && !isOpenToOthers(stat)) return;
  const who = process.geteuid?.() === 0 ? 'root' : 'root and you';
  throw new AgentError('ERR_STATE_CONFLICT', {
    hint: `${path} can be written by others than ${who} (owner ${stat.uid}, mode ${(stat.mode & 0o7777).toString(8)}); a key agent must not run from it.`,
  });
}

/**
 * Makes sure that only root and the user that runs can change what is at a path: the file itself and every folder above it.
 * @throws AgentError `ERR_STATE_CONFLICT` that names the one that others can write.
 */
export function checkTrusted(path: string): void {
  let current = realpathSync(path);
  for (;;) {
    checkOne(current);
    const parent = dirname(current);
    if (parent === current) return;
    current = parent;
  }
}

/** The same of a file whose folders have been looked at. */
export function checkTrustedFile(path: string): void {
  checkOne(path);
}
