import { chmodSync, existsSync, lstatSync, readFileSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { daemonFolder } from './packages.ts';

/** A file to put somewhere: its path and its text. */
export type TextFile = readonly [path: string, text: string];

/** A file of systemd/ in this package. */
export function readShipped(name: string): string {
  return readFileSync(join(daemonFolder, 'systemd', name), 'utf8');
}

export function holds([path, text]: TextFile): boolean {
  return existsSync(path) && readFileSync(path, 'utf8') === text;
}

/** Writes a file that all may read, and puts it in place whole. */
export function writePublic([path, text]: TextFile): void {
  writeFileSync(`${path}.new`, text);
  chmodSync(`${path}.new`, 0o644);
  renameSync(`${path}.new`, path);
}

/** Whether a link is there and points to `target`. */
export function isLink(path: string, target: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true && readlinkSync(path) === target;
}

/** @throws AgentError `ERR_ALREADY_EXISTS` for what is there and is not our link. */
export function checkLink(path: string, target: string): void {
  if (!isLink(path, target) && lstatSync(path, { throwIfNoEntry: false }))
    throw new AgentError('ERR_ALREADY_EXISTS', { hint: `${path} is there and is not a link to ${dirname(target)}; move it away.` });
}

/** Makes a link. @throws AgentError `ERR_ALREADY_EXISTS` for what is not ours. */
export function makeLink(path: string, target: string): void {
  checkLink(path, target);
  symlinkSync(target, path);
}

/** Removes what is there of some files. */
export function removeFiles(paths: readonly string[]): void {
  for (const path of paths) rmSync(path, { force: true });
}
