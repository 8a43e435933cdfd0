import { readFileSync, type Stats } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname } from 'node:path';
import { AgentError, isAgentError } from '@kms-agent/protocol';
import { isOpen, isOpenToOthers, isOurs, walkTo } from './os/trust.ts';

/** The user that runs, by name; by number where it has none. */
function ownName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.geteuid?.());
  }
}

/** What is wrong with a place that others than root and a user can change. */
function complaintOf(place: string, stat: Stats, user: number | undefined): AgentError | undefined {
  if (!isOurs(stat, user))
    return new AgentError('ERR_STATE_CONFLICT', {
      hint: `${place} belongs to user ${stat.uid}, who can change the settings; run: chown ${ownName()} ${place}`,
    });
  const isOpenPlace = stat.isDirectory() ? isOpenToOthers(stat, user) : isOpen(stat);
  return isOpenPlace ? new AgentError('ERR_STATE_CONFLICT', { hint: `${place} can be written by other users; run: chmod go-w ${place}` }) : undefined;
}

/** The code of an error of the system. */
const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : undefined);

/** What keeps the user that runs from a file, and what to do about it. */
function describeHidden({ path = '', syscall }: NodeJS.ErrnoException): string {
  const [right, verb, hidden] = syscall === 'lstat' ? ['x', 'search', dirname(path)] : ['r', 'read', path];
  return `${ownName()} may not ${verb} ${hidden}; if ${ownName()} runs the agent, run: chmod a+${right} ${hidden}`;
}

/** A file that is there, or may be, and cannot be read. */
function unreadable(file: string, error: unknown): AgentError {
  if (isAgentError(error)) return error;
  const { message } = error as Error; // of node:fs or walkTo
  const reason = codeOf(error) === 'EACCES' ? describeHidden(error as NodeJS.ErrnoException) : message;
  return new AgentError('ERR_STATE_CONFLICT', { hint: `The settings in ${file} cannot be read: ${reason}` }, { cause: error });
}

/** What was read, and where it is without links. */
export interface TrustedFile {
  readonly text: string;
  readonly real: string;
}

/**
 * Reads a file that only root and one user can change.
 * @param user - who is to read it: the user of an agent that somebody else asks about. Default: who runs.
 * @returns undefined where none is there. One that cannot be seen may be there: to go on without what it says would be to drop a policy.
 * @throws AgentError `ERR_STATE_CONFLICT` that names what others can write, or why it cannot be read, and what to do.
 */
export function readTrusted(file: string, user?: number): TrustedFile | undefined {
  let complaint: AgentError | undefined;
  let real: string;
  try {
    real = walkTo(file, (place, stat) => {
      complaint ??= complaintOf(place, stat, user); // who can write a folder can put another file of the owner's in the place of this one
    });
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined; // whoever could put one there has not: what they put there later is judged then
    throw unreadable(file, complaint ?? error);
  }
  if (complaint !== undefined) throw complaint;
  try {
    return { text: readFileSync(real, 'utf8'), real };
  } catch (error) {
    throw unreadable(file, error);
  }
}
