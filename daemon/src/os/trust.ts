import { lstatSync, readlinkSync, type Stats } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { isOwnGroup } from './users.ts';

/** Links on the way to a file; past it they go in circles. */
const maxLinks = 40;

/** A name on a path, and the link that led to it. */
interface Part {
  readonly name: string;
  readonly link: string | undefined;
}

const partsOf = (path: string, link?: string): Part[] =>
  path
    .split('/')
    .filter(Boolean)
    .map((name) => ({ name, link }));

/** A path from the root on. What `..` is stays for the kernel to say: behind a link it is the folder above the one that the link leads to. */
export const fromRoot = (path: string): string => (isAbsolute(path) ? path : `${process.cwd()}/${path}`);

/** lstat(2). @throws TypeError for a link that leads nowhere: there is something, but it cannot be seen now. The system's error for all else. */
function statPart(place: string, link: string | undefined): Stats {
  const stat = lstatSync(place, { throwIfNoEntry: link === undefined });
  if (!stat) throw new TypeError(`${link} is a link that leads nowhere: there is no ${place}`);
  return stat;
}

/**
 * Visits all that decides what is found at a path: each folder and link on the way, as the kernel goes it (path_resolution(7)), and the file.
 * @returns the path without links: what is used must be what was visited.
 * @throws what the visitor throws; TypeError for links in circles or into nothing; the system's error, ENOENT only for a path that is not there.
 */
export function walkTo(path: string, visit: (place: string, stat: Stats) => void): string {
  const rest = partsOf(fromRoot(path));
  let real = '/';
  visit(real, lstatSync(real));
  for (let links = 0, part = rest.shift(); part !== undefined; part = rest.shift()) {
    const place = join(real, part.name);
    const stat = statPart(place, part.link);
    visit(place, stat);
    if (!stat.isSymbolicLink()) {
      real = place;
      continue;
    }
    links += 1;
    if (links > maxLinks) throw new TypeError(`${path} leads through too many links`);
    const target = readlinkSync(place);
    rest.unshift(...partsOf(target, place));
    if (isAbsolute(target)) real = '/';
  }
  return real;
}

/** The user that runs. */
const ownUid = (): number => process.geteuid?.() ?? 0;

/** Whether it belongs to root or to a user: any other could put something else there, whatever the mode. @param user - default: who runs. */
export const isOurs = ({ uid }: Stats, user: number = ownUid()): boolean => uid === 0 || uid === user;

/** Whether others can write a file, or put another one in its place in a folder. In a sticky folder only a file's own owner can. */
export function isOpen(stat: Stats): boolean {
  if (stat.isSymbolicLink()) return false; // its mode says nothing; who may replace it, its folder says
  const isSticky = stat.isDirectory() && (stat.mode & 0o1000) !== 0;
  return (stat.mode & 0o022) !== 0 && !isSticky;
}

/** The same where users have a group of their own and a mask of 002: what only such a group can write, nobody else can. Root has none. @param user - default: who runs. */
export function isOpenToOthers(stat: Stats, user: number = ownUid()): boolean {
  if (!isOpen(stat)) return false;
  return (stat.mode & 0o002) !== 0 || user === 0 || !isOwnGroup(user, stat.gid);
}
