import type { KeyslotType } from '@kms-agent/protocol';
import { ifUnsaid, readNewSecret, readSecret } from '@kms-agent/protocol/terminal';
import type { Command } from 'commander';
import { printJson, printTable } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { parseFd, passphraseOption, show } from './shared.ts';

/** Ways into the vault. */
export function addKeyslotCommands(program: Command): void {
  const keyslot = program.command('keyslot').description('ways into the vault');
  keyslot
    .command('list')
    .description('list them')
    .action(async (_options: object, command: Command) => {
      const { keyslots } = await withClient(command, (client) => client.listKeyslots());
      if (optionsOf<object>(command).json) return printJson({ keyslots });
      printTable(
        ['KEYSLOT', 'TYPE', 'LABEL', 'CREATED', 'LAST UNLOCK'],
        keyslots.map(({ keyslotId, type, label, creationTime, lastUnlockTime }) => [keyslotId, type, label, creationTime, lastUnlockTime ?? '-']),
      );
    });
  keyslot
    .command('add <type>')
    .description('add one: passphrase, recovery, keychain or hsm')
    .option('--label <text>', 'what to call it')
    .option('--token <name>', 'of an hsm slot: the token of the settings that opens it')
    .addOption(passphraseOption())
    .option('--new-passphrase-fd <n>', 'read the new passphrase from this descriptor', parseFd)
    .action(async (type: KeyslotType, _options: object, command: Command) => {
      const { label, token, passphraseFd, newPassphraseFd } = optionsOf<{ label?: string; token?: string; passphraseFd?: number; newPassphraseFd?: number }>(
        command,
      );
      const proof = { passphrase: await readSecret('Passphrase of an existing keyslot: ', passphraseFd) };
      const secret = type === 'passphrase' ? { passphrase: await readNewSecret('New passphrase: ', newPassphraseFd) } : {};
      await show(command, async (client) => {
        const added = await client.addKeyslot({ type, proof, ...secret, ...(label === undefined ? {} : { label }), ...(token === undefined ? {} : { token }) });
        const { keyslotId } = added.keyslot;
        if (added.recoveryCode !== undefined)
          ifUnsaid(`Keyslot ${keyslotId} is there. Unless you have seen its recovery code, nobody has it: kms keyslot remove ${keyslotId}, and add another.`);
        return added;
      });
    });
  keyslot
    .command('remove <id>')
    .description('remove one; the last that a person can open stays')
    .addOption(passphraseOption())
    .action(async (keyslotId: string, _options: object, command: Command) => {
      const passphrase = await readSecret('Passphrase of an existing keyslot: ', optionsOf<{ passphraseFd?: number }>(command).passphraseFd);
      await show(command, (client) => client.removeKeyslot({ keyslotId, proof: { passphrase } }));
    });
}
