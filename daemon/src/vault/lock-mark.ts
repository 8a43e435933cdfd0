import { closeSync, fsyncSync, lstatSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Remembers, beside the vault, that it was locked on purpose: an agent that is started again, whatever ended it, must not open it without a person. */
export interface LockMark {
  readonly path: string;
  readonly isSet: boolean;
  /** Set, but not as an agent writes it: cut off, unreadable, or no file. */
  readonly isOdd: boolean;
  /** @throws the system's error; the mark may be set all the same. */
  set(): void;
  /** @throws the system's error. */
  clear(): void;
}

/** As random(4) writes a boot id. */
const bootIdPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * The mark of a vault's folder, a file that holds the machine's boot id: a machine that starts anew opens its vault as it always does,
 * and nothing of a lock has to outlast a loss of power. Whatever else is there counts as set: a person must then unlock, and nothing is opened that was locked.
 */
export function lockMarkIn(dataDir: string, bootId: string): LockMark {
  const path = join(dataDir, 'locked');
  return {
    path,
    get isSet() {
      return ['odd', bootId].includes(readMark(path));
    },
    get isOdd() {
      return readMark(path) === 'odd';
    },
    set: () => writeMark(path, bootId),
    clear: () => rmSync(path, { force: true }),
  };
}

/** Sets or clears the mark. A folder that cannot be written keeps nobody from locking. */
export function changeMark(mark: LockMark, change: 'set' | 'clear', onWarning: (warning: string, error: unknown) => void): void {
  try {
    mark[change]();
  } catch (error) {
    if (change === 'set' && mark.isSet) return; // odd, which serves as well
    onWarning(
      change === 'set'
        ? 'it could not be noted that the vault was locked: an agent that is started again may open it'
        : 'it could not be noted that the vault was opened: an agent that is started again leaves it locked',
      error,
    );
  }
}

/** Whole, so that a loss of power keeps no host locked; where the disk has no room an empty one, which counts too. */
function writeMark(path: string, bootId: string): void {
  const unfinished = `${path}.unfinished`;
  const fd = openSync(unfinished, 'w', 0o600);
  try {
    writeFileSync(fd, bootId);
    fsyncSync(fd);
  } catch {
    // It gets its name all the same: whatever is in it, it says that the vault was locked.
  } finally {
    closeSync(fd);
  }
  renameSync(unfinished, path);
}

/** The boot id in a mark. */
function readMark(path: string): string {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat) return 'none';
  if (!stat.isFile()) return 'odd'; // reading a pipe would wait
  try {
    const text = readFileSync(path, 'utf8');
    return bootIdPattern.test(text) ? text : 'odd';
  } catch {
    return 'odd';
  }
}
