import type { Command } from 'commander';
import { printJson, printTable } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { collect, idOf, show } from './shared.ts';

/** Names for keys. */
export function addAliasCommands(program: Command): void {
  const alias = program.command('alias').description('names for keys');
  alias
    .command('create <alias> <key>')
    .description('make an alias')
    .action((aliasName: string, key: string, _options: object, command: Command) =>
      show(command, async (client) => client.createAlias({ aliasName, keyId: await idOf(client, key) })),
    );
  alias
    .command('update <alias> <key>')
    .description('move an alias to another key')
    .action((aliasName: string, key: string, _options: object, command: Command) =>
      show(command, async (client) => client.updateAlias({ aliasName, keyId: await idOf(client, key) })),
    );
  alias
    .command('delete <alias>')
    .description('delete an alias; the key stays')
    .action((aliasName: string, _options: object, command: Command) => show(command, (client) => client.deleteAlias({ aliasName })));
  alias
    .command('list [key]')
    .description('list aliases')
    .action(async (key: string | undefined, _options: object, command: Command) => {
      const aliases = await withClient(command, (client) => collect(client.listAllAliases({ limit: 1000, ...(key === undefined ? {} : { keyId: key }) })));
      if (optionsOf<object>(command).json) return printJson({ aliases });
      printTable(
        ['ALIAS', 'KEY', 'UPDATED'],
        aliases.map(({ aliasName, keyId, lastUpdateTime }) => [aliasName, keyId, lastUpdateTime]),
      );
    });
}
