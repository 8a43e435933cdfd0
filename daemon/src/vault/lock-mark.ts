import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Remembers, beside the vault, that it was locked on purpose: an agent that is started again, whatever ended it, must not open it without a person. */
export interface LockMark {
  readonly isSet: boolean;
  /** @throws the system's error. */
  set(): void;
  /** @throws the system's error. */
  clear(): void;
}

/**
 * The mark of a vault's folder, a file that holds the machine's boot id: a machine that starts anew opens its vault as it always does,
 * and nothing of a lock has to outlast a loss of power.
 */
export function lockMarkIn(dataDir: string, bootId: string): LockMark {
  const path = join(dataDir, 'locked');
  return {
    get isSet() {
      return readMark(path) === bootId;
    },
    set: () => writeFileSync(path, bootId, { mode: 0o600 }),
    clear: () => rmSync(path, { force: true }),
  };
}

/** Sets or clears the mark. A folder that cannot be written keeps nobody from locking. */
export function changeMark(mark: LockMark, change: 'set' | 'clear', onWarning: (warning: string, error: unknown) => void): void {
  try {
    mark[change]();
  } catch (error) {
    onWarning(
      change === 'set'
        ? 'it could not be noted that the vault was locked: an agent that is started again may open it'
        : 'it could not be noted that the vault was opened: an agent that is started again leaves it locked',
      error,
    );
  }
}

function readMark(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
