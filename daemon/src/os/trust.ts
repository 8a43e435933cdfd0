import { lstatSync, readlinkSync, type Stats } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';

/** Links on the way to a file; past it they go in circles. */
const maxLinks = 40;

/**
 * Visits all that decides what is found at a path: each folder and link on the way, and the file.
 * @returns the path without links.
 * @throws what the visitor throws; TypeError for links in circles.
 */
export function walkTo(path: string, visit: (place: string, stat: Stats) => void): string {
  const rest = resolve(path).split('/').filter(Boolean);
  let real = '/';
  visit(real, lstatSync(real));
  for (let links = 0, name = rest.shift(); name !== undefined; name = rest.shift()) {
    const place = join(real, name);
    const stat = lstatSync(place);
    visit(place, stat);
    if (!stat.isSymbolicLink()) {
      real = place;
      continue;
    }
    links += 1;
    if (links > maxLinks) throw new TypeError(`${path} leads through too many links`);
    const target = readlinkSync(place);
    rest.unshift(...target.split('/').filter(Boolean));
    if (isAbsolute(target)) real = '/';
  }
  return real;
}

/** Whether it belongs to root or to the user that runs: any other could put something else there, whatever the mode. */
export const isOurs = ({ uid }: Stats): boolean => uid === 0 || uid === process.geteuid?.();

/** Whether others can write a file, or put another one in its place in a folder. In a sticky folder only a file's own owner can. */
export function isOpen(stat: Stats): boolean {
  if (stat.isSymbolicLink()) return false; // its mode says nothing; who may replace it, its folder says
  const isSticky = stat.isDirectory() && (stat.mode & 0o1000) !== 0;
  return (stat.mode & 0o022) !== 0 && !isSticky;
}

/** The same where many users have a group of their own and a mask of 002; root has no such group. */
export function isOpenToOthers(stat: Stats): boolean {
  const isOwnGroup = process.geteuid?.() !== 0 && stat.gid === process.getegid?.();
  return isOpen(stat) && !(isOwnGroup && (stat.mode & 0o002) === 0);
}
