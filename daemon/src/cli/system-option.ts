import { AgentError, systemSocketPath } from '@kms-agent/protocol';
import type { Command } from 'commander';
import type { Choice, Places } from '../config.ts';
import { findUserId } from '../os/users.ts';
import { serviceUser, systemPlaces } from './install/host.ts';

/** What a command takes that can be about the system's agent. */
export interface SystemOption {
  readonly system?: boolean;
}

/** Adds `--system` to a command. */
export const withSystem = (command: Command): Command => command.option('--system', "the system's agent, in place of your own");

const needsQuotes = /[^\w@%+=:,./-]/;
const quote = (word: string): string => (word === '' || needsQuotes.test(word) ? `'${word.replaceAll("'", String.raw`'\''`)}'` : word);

/**
 * The places of the system's agent, for its own user only: whoever else wrote there, root too, would leave files that the agent cannot use.
 * @throws AgentError `ERR_ACCESS_DENIED` with the same command as that user.
 */
export function systemFolders(): Pick<Places, 'dataDir' | 'auditDir'> {
  if (process.geteuid?.() === findUserId(serviceUser)) return systemPlaces;
  const command = process.argv.slice(2).map(quote).join(' ');
  throw new AgentError('ERR_ACCESS_DENIED', {
    hint: `The files of the system's agent belong to the user ${serviceUser}; as root, run: runuser -u ${serviceUser} -- kms-agent ${command}`,
  });
}

const fromOption = (path: string): Choice => ({ path, from: '--system' });

/** The places of the system's agent, as `config show` prints them. */
export const systemChoices = (): { readonly [K in keyof Places]: Choice } => ({
  dataDir: fromOption(systemPlaces.dataDir),
  auditDir: fromOption(systemPlaces.auditDir),
  socketPath: fromOption(systemSocketPath),
  configFile: fromOption(systemPlaces.configFile),
});
