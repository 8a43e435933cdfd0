import { lstatSync, readdirSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';

/** A tree: its top folder, and all that is below it. */
export function* walkTree(top: string): Generator<string> {
  yield top;
  for (const entry of readdirSync(top, { recursive: true, withFileTypes: true })) yield join(entry.parentPath, entry.name);
}

/** The folders above a path, up to the root. */
export function* foldersAbove(path: string): Generator<string> {
  for (let folder = path; dirname(folder) !== folder; ) {
    folder = dirname(folder);
    yield folder;
  }
}

const isPlain = (stat: Stats): boolean => stat.isFile() || stat.isDirectory();
const isOfRootAlone = (stat: Stats): boolean => stat.uid === 0 && (stat.mode & 0o022) === 0;

/** The first of some paths that another than root can change, or that leads elsewhere, and what is wrong with it; undefined where there is none. */
export function findForeign(paths: Iterable<string>): string | undefined {
  for (const path of paths) {
    const stat = lstatSync(path);
    if (!isPlain(stat)) return `${path} is neither a file nor a folder`;
    if (!isOfRootAlone(stat)) return `${path} can be changed by others than root (owner ${stat.uid}, mode ${(stat.mode & 0o7777).toString(8)})`;
  }
  return undefined;
}
