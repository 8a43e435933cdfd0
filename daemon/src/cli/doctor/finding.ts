import { isAgentError } from '@kms-agent/protocol';

/** One thing that was looked at. Where it is not as it should be, `detail` says what is wrong and how to mend it. */
export interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** Something is not as it should be. */
export class WrongError extends Error {
  override readonly name = 'WrongError';
}

/** @param mend - what to do about it, best a command. */
export const wrong = (what: string, mend: string): WrongError => new WrongError(`${what}. To mend it: ${mend}.`);

/** Codes of the system for what this user may not see. */
const hidden = new Set(['EACCES', 'EPERM']);

/** Whether an error says that this user may not see it. */
export const isHidden = (error: Error): boolean => 'code' in error && typeof error.code === 'string' && hidden.has(error.code);

/** Does what only some users may see. @param who - may. @throws WrongError that names them, in the place of what the system said. */
export function seeAs<T>(who: string, what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof Error && isHidden(error)) throw wrong(`${what} cannot be seen by this user`, `run doctor as ${who}`);
    throw error;
  }
}

function describe(error: unknown): string {
  if (isAgentError(error)) return error.details.hint ?? error.message;
  if (!(error instanceof Error)) return String(error);
  return isHidden(error) ? wrong(error.message, "run doctor as root or as the agent's own user").message : error.message;
}

/** Looks at one thing. @param work - answers what was found; throws when it is wrong. */
export async function look(name: string, work: () => Promise<string> | string): Promise<Finding> {
  try {
    return { name, ok: true, detail: await work() };
  } catch (error) {
    return { name, ok: false, detail: describe(error) };
  }
}
