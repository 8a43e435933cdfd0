import { type CommandWords, completionMakers } from '../../client/src/cli/completion.ts';
import { type CommandPage, readCommands } from './commands.ts';
import { formatErrorsPage } from './errors.ts';
import { formatManPage } from './man.ts';

const socket = { KMS_AGENT_SOCK: "Socket of the agent; default: the user's agent if there is one, else /run/kms-agent/agent.sock." };

const asWords = ({ name, commands, options }: CommandPage): CommandWords => ({ name: () => name, commands: commands.map(asWords), options });

function completions(folder: string, program: CommandPage): [path: string, text: string][] {
  return ['bash', 'zsh', 'fish'].map((shell) => [`${folder}/completions/${program.name}.${shell}`, `${completionMakers.get(shell)?.(asWords(program))}\n`]);
}

/** Every page that is made and not written: its path in the repository, and its text. */
export function makePages(): ReadonlyMap<string, string> {
  const kms = readCommands('client/dist/cli/main.js');
  const agent = readCommands('daemon/dist/cli/main.js');
  const clientMan = formatManPage(kms, {
    environment: socket,
    files: { '/run/kms-agent/agent.sock': 'Socket of the agent of the system.' },
    seeAlso: 'kms-agent(1), age(1)',
  });
  const agentMan = formatManPage(agent, {
    environment: { ...socket, 'KMS_AGENT_DATA_DIR, KMS_AGENT_AUDIT_DIR, KMS_AGENT_CONFIG': 'Places of the vault, the audit record and the settings.' },
    files: {
      '~/.local/share/kms-agent/vault.db, /var/lib/kms-agent/vault.db': "The vault of a user's agent, of the system's.",
      '~/.config/kms-agent/config.json, /etc/kms-agent/config.json': 'Settings; daemon/README.md lists them.',
      '~/.local/state/kms-agent/audit, /var/log/kms-agent': 'The audit record.',
    },
    seeAlso: 'kms(1), systemd.exec(5)',
  });
  return new Map([
    ['client/ERRORS.md', formatErrorsPage()],
    ['client/man/kms.1', clientMan],
    ['daemon/man/kms-agent.1', agentMan],
    ...completions('client', kms),
    ...completions('daemon', agent),
  ]);
}
