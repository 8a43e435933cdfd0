import { decodeParams, encodeResult, isMethodName, methodNames } from '@kms-agent/protocol';
import { readSecret } from '@kms-agent/protocol/terminal';
import type { Command } from 'commander';
import { confirm } from '../confirm.ts';
import { readInput, UsageError } from '../files.ts';
import { printJson } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { passphraseOption, show } from './shared.ts';

/** The agent itself, and any method by its name. */
export function addAgentCommands(program: Command): void {
  program
    .command('status')
    .description('how the agent is')
    .action((_options: object, command: Command) => show(command, (client) => client.status()));
  program
    .command('whoami')
    .description('who the agent takes you for')
    .action((_options: object, command: Command) => show(command, (client) => client.whoAmI()));
  program
    .command('lock')
    .description('forget every key until the next unlock')
    .action((_options: object, command: Command) => show(command, (client) => client.lock()));
  program
    .command('confirm-clock')
    .description('say that the wall clock is right after a jump: destruction and expiry of keys go on')
    .option('--yes', 'do not ask')
    .action(async (_options: object, command: Command) => {
      await confirm(command, `It is ${new Date().toString()}. Keys whose time has come by this clock are destroyed for good.`);
      await show(command, (client) => client.confirmClock());
    });
  program
    .command('unlock')
    .description('open the vault with a passphrase or the recovery code')
    .option('--keyslot <id>', 'only this slot')
    .addOption(passphraseOption())
    .action(async (_options: object, command: Command) => {
      const { keyslot, passphraseFd } = optionsOf<{ keyslot?: string; passphraseFd?: number }>(command);
      const passphrase = await readSecret('Passphrase or recovery code: ', passphraseFd);
      await show(command, (client) => client.unlock({ passphrase, ...(keyslot ? { keyslotId: keyslot } : {}) }));
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

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UsageError('the parameters are not JSON', { cause });
  }
}
