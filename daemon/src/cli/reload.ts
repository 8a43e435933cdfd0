import { isAgentError } from '@kms-agent/protocol';
import { defaultSettings, findChanged, readSettings, reloadable, type Settings } from '../config.ts';
import { describeError, type Log } from '../log.ts';
import type { RunningAgent } from '../main.ts';

/** Where settings come from, and who takes them over. */
export interface ReloadOptions {
  readonly file: string;
  readonly required: boolean;
  readonly running: RunningAgent;
  readonly log: Log;
}

/** What a person should read of a wrong settings file. */
function describe(error: unknown): string {
  const { hint, path, reason } = isAgentError(error) ? error.details : {};
  return hint ?? (path === undefined ? describeError(error) : `${path} ${reason ?? ''}`);
}

/** How a reload ended. */
export interface Reloaded {
  /** What holds now. */
  readonly settings: Settings;
  /** What is wrong with the file, for everybody; then nothing was taken over. */
  readonly refusal?: string;
}

/** Whether a file said what holds: where it has gone, that is no order to forget it. */
const cameFromFile = (settings: Settings): boolean => findChanged(defaultSettings, settings).length > 0;

/** Why nothing was taken over, in the status that every user can read: a parser quotes the file, and the log alone says what. */
const describeToAll = (file: string, error: unknown): string =>
  isAgentError(error) && error.cause instanceof SyntaxError ? `The settings in ${file} are no valid JSON: see the log` : describe(error);

/** Reads the settings again; what is wrong, or has gone, changes nothing. */
export async function reload(before: Settings, { file, required, running, log }: ReloadOptions): Promise<Reloaded> {
  try {
    const after = await readSettings(file, required || cameFromFile(before));
    const changed = findChanged(before, after);
    const [taken, waiting] = [changed.filter((name) => reloadable.has(name)), changed.filter((name) => !reloadable.has(name))];
    running.reload(after);
    log.setLevel(after.logLevel);
    running.audit.note({ operation: 'reload', outcome: 'ok', detail: { changed: taken.join(' '), waiting: waiting.join(' ') } });
    log.info('settings read again', { settings: taken.join(' ') || 'no change' });
    if (waiting.length > 0) log.warn('settings that changed and wait for a restart', { settings: waiting.join(' ') });
    return { settings: { ...before, logLevel: after.logLevel, administrators: after.administrators, policy: after.policy } };
  } catch (error) {
    running.audit.note({ operation: 'reload', outcome: 'failed', error: isAgentError(error) ? error.code : 'ERR_INTERNAL' });
    log.error('reload refused: the settings are not valid; those from before hold', { detail: describe(error) });
    return { settings: before, refusal: describeToAll(file, error) };
  }
}
