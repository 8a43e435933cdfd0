import { lstatSync } from 'node:fs';
import { AgentError, isAgentError } from '@kms-agent/protocol';
import { runAsUser, type UserIds } from '../as-user.ts';
import { checkSettings } from '../config-commands.ts';
import { checkServiceUserReads } from '../service-user.ts';
import { findServiceUser, systemPlaces } from './host.ts';

/** Whether the agent's user can run this Node and program: they may lie where only root comes, and root may not be able to become that user. */
async function canRun(user: UserIds): Promise<boolean> {
  try {
    await runAsUser({ user, withGroups: true, args: ['--version'], inputs: [] });
    return true;
  } catch {
    return false;
  }
}

/** @throws AgentError `ERR_STATE_CONFLICT` with what `check` complained of. */
async function beforeAnything(check: () => Promise<unknown>): Promise<void> {
  try {
    await check();
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : String(cause);
    const why = isAgentError(cause) ? (cause.details.hint ?? said) : said.replace(/^ERR_\w+: /, '');
    throw new AgentError('ERR_STATE_CONFLICT', { hint: `Nothing was changed, because the agent would not start: ${why}` }, { cause });
  }
}

/** Reads them as root, and asks whether the agent's user could. */
async function checkAsRoot(configFile: string): Promise<void> {
  await checkSettings(configFile, true);
  checkServiceUserReads(configFile);
}

/**
 * Makes sure that the system's agent will start with the settings that are there: this program reads them, which may be newer than the installed one,
 * and as the agent's user where it can.
 * @throws AgentError `ERR_STATE_CONFLICT` that names what is wrong with them.
 */
export async function checkSystemSettings(): Promise<void> {
  const { configFile } = systemPlaces;
  if (!lstatSync(configFile, { throwIfNoEntry: false })) return; // a link into nothing is somebody's settings too
  const user = findServiceUser();
  const asUser = user !== undefined && (await canRun(user));
  await beforeAnything(() => (asUser ? runAsUser({ user, withGroups: true, args: ['config', 'check', '--system'], inputs: [] }) : checkAsRoot(configFile)));
}

/** The same of a user's own agent. */
export async function checkUserSettings(configFile: string): Promise<void> {
  await beforeAnything(() => checkSettings(configFile, false));
}
