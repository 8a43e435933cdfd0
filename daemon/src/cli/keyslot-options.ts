import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { credentialStore } from '../os/credential-store.ts';
import { systemPlaces } from './install/host.ts';
import { type AddCredentialOptions, addCredentialKeyslot, addKeychainKeyslot } from './keyslot-commands.ts';
import { type SystemOption, systemFolders, withSystem } from './system-option.ts';
import type { VaultCommandOptions } from './vault-commands.ts';

/** The vault that is meant. Root makes the credential of the system's vault, and its own user the slot; with a secret that somebody else keeps there is only the slot to make. */
function placeOf({ system = false, dataDir, secretFd }: AddCredentialOptions & SystemOption): string {
  if (!system) return resolve(dataDir);
  return secretFd === undefined ? systemPlaces.dataDir : systemFolders().dataDir;
}

/** Ways into the vault that are made on its files, with the agent stopped; the others are kms's. */
export function addKeyslotCommands(program: Command, { dataDir, parseFd }: { dataDir: string; parseFd: (text: string) => number }): void {
  const add = program.command('keyslot').description('ways into the vault').command('add').description('add one');
  add
    .command('keychain')
    .description(
      'one that the OS keychain of your session opens, so that a log-in unlocks; the agent must be stopped (while it runs: kms keyslot add keychain)',
    )
    .option('--data-dir <dir>', 'folder of the vault', dataDir)
    .option('--passphrase-fd <n>', 'read the passphrase from this descriptor instead of the terminal', parseFd)
    .option('--json', 'answer as JSON')
    .addHelpText('after', '\nExample:\n  $ kms-agent keyslot add keychain')
    .action((options: VaultCommandOptions) => addKeychainKeyslot({ ...options, dataDir: resolve(options.dataDir) }));
  withSystem(add.command('credential'))
    .description('one that a systemd credential opens, so that the host unlocks at its start; the agent must be stopped')
    .option('--data-dir <dir>', 'folder of the vault', dataDir)
    .option('--passphrase-fd <n>', 'read the passphrase from this descriptor instead of the terminal', parseFd)
    .option('--secret-fd <n>', 'keep the secret yourself: 32 bytes in base64 from this descriptor', parseFd)
    .addOption(new Option('--with-key <key>', 'what the credential is encrypted with').choices(['auto', 'host', 'tpm2', 'host+tpm2']).default('auto'))
    .option('--credstore <dir>', 'folder of the credential', credentialStore)
    .option('--json', 'answer as JSON')
    .addHelpText('after', '\nExample:\n  # kms-agent keyslot add credential --system')
    .action((options: AddCredentialOptions & SystemOption) =>
      addCredentialKeyslot({ ...options, dataDir: placeOf(options), credstore: resolve(options.credstore) }),
    );
}
