import { type AgentStatus, decodeParams, encodeResult, isMethodName, methodNames } from '@kms-agent/protocol';
import { readSecret } from '@kms-agent/protocol/terminal';
import type { Command } from 'commander';
import type { AgentClient } from '../../client.ts';
import { confirm } from '../confirm.ts';
import { readInput, UsageError } from '../files.ts';
import { escapeControls, printJson } from '../print.ts';
import { describeAddress, optionsOf, withClient } from '../session.ts';
import { formatStatusPage } from '../status-page.ts';
import { parseFd, passphraseOption, show } from './shared.ts';

/** Runs a call that answers how the agent is, and shows that. */
async function showStatus(command: Command, work: (client: AgentClient) => Promise<AgentStatus>): Promise<void> {
  const status = await withClient(command, work);
  const { json, socket } = optionsOf<object>(command);
  if (json) printJson(status);
  else process.stdout.write(formatStatusPage(status, describeAddress(socket), Date.now()));
}

/** The agent itself, and any method by its name. */
export function addAgentCommands(program: Command): void {
  program
    .command('status')
    .description('how the agent is')
    .action((_options: object, command: Command) => showStatus(command, (client) => client.status()));
  program
    .command('whoami')
    .description('who the agent takes you for')
    .action((_options: object, command: Command) => show(command, (client) => client.whoAmI()));
  program
    .command('metrics')
    .description('print figures in the Prometheus text format')
    .addHelpText(
      'after',
      '\nExample, for the textfile collector of node_exporter:\n  $ kms metrics > /var/lib/node_exporter/kms-agent.prom.new && mv /var/lib/node_exporter/kms-agent.prom.new /var/lib/node_exporter/kms-agent.prom',
    )
    .action(async (_options: object, command: Command) => {
      const metrics = await withClient(command, (client) => client.metrics());
      if (optionsOf<object>(command).json) printJson(metrics);
      else process.stdout.write(metrics.text);
    });
  program
    .command('lock')
    .description('forget every key until the next unlock')
    .action((_options: object, command: Command) => showStatus(command, (client) => client.lock()));
  program
    .command('confirm-clock')
    .description('say that the wall clock is right after a jump, or that a restored vault may go on: destruction and expiry of keys go on')
    .option('--yes', 'do not ask')
    .action(async (_options: object, command: Command) => {
      const { warnings = [] } = await withClient(command, (client) => client.status());
      const waiting = warnings.filter((warning) => warning.includes('confirm-clock')).map(escapeControls);
      await confirm(command, [...waiting, `It is ${new Date().toString()}. Keys whose time has come are destroyed for good.`].join('\n'));
      await showStatus(command, (client) => client.confirmClock());
    });
  program
    .command('unlock')
    .description('open the vault with a passphrase or the recovery code, or log in to a token')
    .option('--keyslot <id>', 'only this slot')
    .option('--token <name>', 'log in to this token of the settings; opens the vault too, where the token has a slot')
    .option('--pin-fd <n>', 'read the PIN of the token from this descriptor instead of the terminal', parseFd)
    .option('--no-person', 'ask no passphrase: try the credential, the OS keychain and every token that has a slot; with --token its own source of the PIN')
    .addOption(passphraseOption())
    .addHelpText('after', '\nExamples:\n  $ kms unlock\n  $ kms unlock --token signing')
    .action(async (_options: object, command: Command) => {
      const options = optionsOf<UnlockOptions>(command);
      const slot = options.keyslot ? { keyslotId: options.keyslot } : {};
      const secret = await readUnlockSecret(options);
      await showStatus(command, (client) => client.unlock({ ...slot, ...secret }));
    });
  program
    .command('call <method> [json]')
    .description('call any method as on the wire; - reads the parameters from standard input')
    .addHelpText('after', `\nMethods: ${methodNames.join(' ')}\n\nExample:\n  $ kms call describeKey '{"keyId":"alias/default"}'`)
    .action(async (method: string, json: string | undefined, _options: object, command: Command) => {
      if (!isMethodName(method)) throw new UsageError(`there is no method ${method}; kms call --help lists them`);
      const params = decodeParams(method, parseJson(json === '-' ? Buffer.from(readInput('-')).toString() : (json ?? '{}')));
      printJson(encodeResult(method, await withClient(command, (client) => client.call(method, params))));
    });
}

interface UnlockOptions {
  readonly keyslot?: string;
  readonly token?: string;
  readonly pinFd?: number;
  readonly passphraseFd?: number;
  readonly person: boolean;
}

async function readUnlockSecret({ token, pinFd, passphraseFd, person }: UnlockOptions): Promise<{ token?: string; pin?: string; passphrase?: string }> {
  if (token === undefined) return person ? { passphrase: await readSecret('Passphrase or recovery code: ', passphraseFd) } : {};
  return person ? { token, pin: await readSecret(`PIN of the token ${token}: `, pinFd) } : { token };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UsageError('the parameters are not JSON', { cause });
  }
}
