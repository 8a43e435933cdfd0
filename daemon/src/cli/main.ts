import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { isAgentError, systemSocketPath } from '@kms-agent/protocol';
import { endWithOutput } from '@kms-agent/protocol/terminal';
import { Command } from 'commander';
import { choosePlaces, findPlaces } from '../config.ts';
import { version } from '../os/own-package.ts';
import { protectProcess } from '../os/protections.ts';
import { fromRoot } from '../os/trust.ts';
import type { ConfigOptions } from './config-commands.ts';
import { requireServiceUser, systemPlaces } from './install/host.ts';
import { addInstallCommands } from './install/options.ts';
import { addKeyslotCommands } from './keyslot-options.ts';
import { HopelessStart } from './supervised.ts';
import { type SystemOption, systemChoices, systemFolders, withSystem } from './system-option.ts';

protectProcess();

const places = findPlaces(process.env, homedir());

interface CommonOptions {
  dataDir: string;
  passphraseFd?: number;
  json?: boolean;
}

interface ServeCommandOptions {
  config?: string;
  dataDir: string;
  socket: string;
  auditDir?: string;
  acceptRollback?: bigint;
}

interface DoctorCommandOptions {
  config?: string;
  dataDir: string;
  socket: string;
  auditDir?: string;
  system?: boolean;
  json?: boolean;
}

// What a command runs is loaded when it runs: the start of an agent need not wait for the others.
const vaultCommands = (): Promise<typeof import('./vault-commands.ts')> => import('./vault-commands.ts');
const settingsCommands = (): Promise<typeof import('./config-commands.ts')> => import('./config-commands.ts');

const collect = (value: string, before: readonly string[]): string[] => [...before, value];

function parseFd(text: string): number {
  const fd = Number(text);
  if (Number.isInteger(fd) && fd >= 0) return fd;
  throw new TypeError(`an option that ends in -fd takes the number of an open descriptor, not ${text}`);
}

function parseRevision(text: string): bigint {
  if (/^\d{1,19}$/.test(text)) return BigInt(text);
  throw new TypeError(`--accept-rollback takes the revision that the agent named, not ${text}`);
}

/** A vault that is somewhere else has its audit record beside it: two agents must not share one. */
function findAuditDir(dataDir: string, auditDir: string | undefined): string {
  if (auditDir !== undefined) return resolve(auditDir);
  return resolve(dataDir) === resolve(places.dataDir) ? places.auditDir : join(resolve(dataDir), 'audit');
}

/** Whether there must be a settings file: one that somebody names, as the unit of the system's agent does, has a reason to be there. */
function mustBeThere(config: string | undefined, system = false): boolean {
  return config !== undefined || system || Boolean(process.env['KMS_AGENT_CONFIG']);
}

/** A command on the vault's files. */
function vaultCommand(name: string, description: string, example: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--data-dir <dir>', 'folder of the vault', places.dataDir)
    .option('--passphrase-fd <n>', 'read the passphrase from this descriptor instead of the terminal', parseFd)
    .option('--json', 'answer as JSON')
    .addHelpText('after', `\nExample:\n  $ kms-agent ${example}`);
}

const program = new Command('kms-agent')
  .description('A key management service on your own machine: holds unlocked keys and serves them over a Unix socket.')
  .version(version)
  .enablePositionalOptions()
  .showHelpAfterError('(kms-agent --help shows what there is)')
  .addHelpText('after', '\nExamples:\n  $ kms-agent dev -- npm test        an agent in memory for one command\n  $ kms-agent init && kms-agent serve');

vaultCommand('init', 'make a vault with a passphrase, a recovery code and a default key', 'init')
  .option('--no-default-key', 'make no default key')
  .option('--keychain', 'let the OS keychain open it whenever you are logged in; on a terminal you are asked')
  .option('--no-keychain', 'do not, and do not ask')
  .option('--system', "the vault of the system's agent, as its own user")
  .action(async ({ system = false, ...options }: CommonOptions & { defaultKey: boolean; keychain?: boolean; system?: boolean }) => {
    const { init } = await vaultCommands();
    await init(system ? { ...options, dataDir: requireServiceUser() } : options);
  });

program
  .command('serve')
  .description('run the agent in the foreground')
  .option('--config <file>', 'settings file')
  .option('--data-dir <dir>', 'folder of the vault', places.dataDir)
  .option('--socket <path>', 'socket to listen on', places.socketPath)
  .option('--audit-dir <dir>', 'folder of the audit record (default: the usual place, or audit/ in a --data-dir that is given)')
  .option('--accept-rollback <revision>', 'go on with a vault that was put back to this revision on purpose', parseRevision)
  .addHelpText('after', '\nExample:\n  $ kms-agent serve --data-dir ./vault --socket ./agent.sock')
  .action(async ({ config, dataDir, socket, auditDir, acceptRollback }: ServeCommandOptions) => {
    const { serve } = await import('./serve.ts');
    await serve({
      config: config ?? places.configFile,
      configRequired: mustBeThere(config),
      dataDir: resolve(dataDir),
      auditDir: findAuditDir(dataDir, auditDir),
      socket: resolve(socket),
      ...(acceptRollback === undefined ? {} : { acceptRollback }),
    });
  });

program
  .command('dev')
  .description('run an agent in memory, already unlocked, on a private socket; with a command, for as long as that runs')
  .argument('[command...]', 'command to run with KMS_AGENT_SOCK set')
  .option('--socket <path>', 'socket to listen on')
  .option('--no-default-key', 'make no default key')
  .passThroughOptions()
  .addHelpText('after', '\nExamples:\n  $ kms-agent dev -- npm test\n  $ kms-agent dev --socket ./agent.sock')
  .action(async (command: string[], { socket, defaultKey }: { socket?: string; defaultKey: boolean }) => {
    const { serveDev } = await import('./serve.ts');
    await serveDev({ command, defaultKey, ...(socket === undefined ? {} : { socket: resolve(socket) }) });
  });

/** Options with the folder that is meant. */
const placed = <T extends CommonOptions & SystemOption>({ system = false, ...options }: T) =>
  system ? { ...options, dataDir: systemFolders().dataDir } : options;

withSystem(vaultCommand('rekey', 'make a new root key and seal everything anew; other keyslots must be added again', 'rekey')).action(
  async (options: CommonOptions) => (await vaultCommands()).rekey(placed(options)),
);
withSystem(vaultCommand('backup', 'write a consistent sealed copy, also while the agent runs', 'backup /media/safe/vault-backup.db'))
  .argument('<file>', 'file to write; it must not exist')
  .action(async (file: string, options: CommonOptions) => (await vaultCommands()).backup(placed(options), file));
withSystem(vaultCommand('restore', 'put a backup in place; refuses to write over a vault', 'restore /media/safe/vault-backup.db'))
  .argument('<file>', 'backup to read')
  .action(async (file: string, options: CommonOptions) => (await vaultCommands()).restore(placed(options), file));
withSystem(vaultCommand('salvage', 'save what still opens of a damaged vault into a new one', 'salvage ./rescued'))
  .argument('<new-data-dir>', 'folder of the new vault')
  .action(async (newDataDir: string, options: CommonOptions) => (await vaultCommands()).salvage(placed(options), newDataDir));

addInstallCommands(program, { places, parseFd });
addKeyslotCommands(program, { dataDir: places.dataDir, parseFd });

const configCommands = program.command('config').description('the settings');

/** A command on a settings file. */
function configCommand(name: string, description: string): Command {
  return withSystem(configCommands.command(name))
    .description(description)
    .option('--config <file>', 'settings file')
    .option('--json', 'answer as JSON')
    .addHelpText('after', `\nExample:\n  $ kms-agent config ${name}`);
}

interface ConfigCommandOptions extends SystemOption {
  config?: string;
  json?: boolean;
}

const configFrom = ({ config, json, system = false }: ConfigCommandOptions): ConfigOptions => {
  const usual = system ? systemChoices() : choosePlaces(process.env, homedir());
  return {
    usual,
    config: config === undefined ? usual.configFile.path : fromRoot(config),
    required: mustBeThere(config, system),
    ...(json ? { json } : {}),
  };
};

configCommand('show', 'print every setting as it holds, and where it comes from').action(
  async (options: ConfigCommandOptions) => (await settingsCommands()).showConfig({ ...configFrom(options), required: mustBeThere(options.config) }), // also where nothing is installed yet
);
configCommand('check', 'say whether the settings are valid, and what is wrong').action(async (options: ConfigCommandOptions) =>
  (await settingsCommands()).checkConfig(configFrom(options)),
);
configCommands
  .command('schema')
  .description('print the JSON schema of a settings file')
  .action(async () => (await settingsCommands()).printSchema());

program
  .command('hsm')
  .description('hardware tokens')
  .command('list')
  .description('show what a PKCS#11 module offers, and a configuration that is ready to be copied')
  .requiredOption('--module <file>', "the vendor's PKCS#11 module")
  .option('--json', 'answer as JSON')
  .addHelpText('after', '\nExample:\n  $ kms-agent hsm list --module /usr/lib/softhsm/libsofthsm2.so')
  .action(async (options: { module: string; json?: boolean }) => (await import('./hsm-commands.ts')).listTokens(options));

withSystem(program.command('audit').description('the record of what was asked and done').command('verify'))
  .description('prove that nobody changed the record: names the first that was flipped, dropped, swapped, duplicated or cut off')
  .option('--data-dir <dir>', 'folder of the vault', places.dataDir)
  .option('--audit-dir <dir>', 'folder of the audit record (default: as for serve)')
  .option('--archive <dir>', 'read the files in this folder, which were moved or copied away, as part of the record (repeatable)', collect, [])
  .option('--passphrase-fd <n>', 'read the passphrase from this descriptor instead of the terminal', parseFd)
  .option('--json', 'answer as JSON')
  .addHelpText(
    'after',
    '\nExamples:\n  $ kms-agent audit verify\n  $ kms-agent audit verify --archive /srv/archive/kms-audit\n\nExit status: 0 whole, 1 broken.',
  )
  .action(async ({ dataDir, auditDir, archive, system = false, ...options }: CommonOptions & SystemOption & { auditDir?: string; archive: string[] }) => {
    const { auditVerify } = await import('./audit-commands.ts');
    const folders = system ? systemFolders() : { dataDir: resolve(dataDir), auditDir: findAuditDir(dataDir, auditDir) };
    const isWhole = await auditVerify({
      ...options,
      dataDir: folders.dataDir,
      auditDir: folders.auditDir,
      archives: archive.map((folder) => resolve(folder)),
    });
    process.exitCode = isWhole ? 0 : 1;
  });

program
  .command('doctor')
  .description('say what is wrong with the agent, its files, settings and tokens, and how to mend it')
  .option('--config <file>', 'settings file')
  .option('--data-dir <dir>', 'folder of the vault', places.dataDir)
  .option('--socket <path>', 'socket of the agent', places.socketPath)
  .option('--audit-dir <dir>', 'folder of the audit record (default: as for serve)')
  .option('--system', "the places of the system's agent")
  .option('--json', 'answer as JSON')
  .addHelpText('after', '\nExamples:\n  $ kms-agent doctor\n  $ kms-agent doctor --system\n\nExit status: 0 well, 1 something is wrong.')
  .action(async ({ config, dataDir, socket, auditDir, system = false, json = false }: DoctorCommandOptions) => {
    const asked = { dataDir: resolve(dataDir), auditDir: findAuditDir(dataDir, auditDir), socket: resolve(socket), config: config ?? places.configFile };
    const where = system ? { ...systemPlaces, config: systemPlaces.configFile, socket: systemSocketPath } : asked;
    const { doctor } = await import('./doctor/doctor.ts');
    process.exitCode = (await doctor({ ...where, configRequired: mustBeThere(config, system), json })) ? 0 : 1;
  });

/** Usage, and a start that settings or files forbid: 2, which the unit does not try again. Refused: 1. Locked or without a vault: 4. */
function exitCodeOf(error: unknown): number {
  if (isAgentError(error, 'ERR_NOT_INITIALIZED', 'ERR_AGENT_LOCKED')) return 4;
  return isAgentError(error) ? 1 : 2;
}

function explain(error: unknown): string {
  if (error instanceof HopelessStart) return explain(error.cause);
  if (!isAgentError(error)) return error instanceof Error ? error.message : String(error);
  const { hint, path, reason, findings } = error.details;
  const named = Array.isArray(findings) ? findings.map((finding) => `\n  ${String(finding)}`).join('') : '';
  return `${error.code}: ${[hint ?? error.message, path, reason].filter(Boolean).join(' ')}${named}`;
}

endWithOutput('kms-agent'); // an agent goes on: see serve

try {
  await program.parseAsync();
} catch (error) {
  const { journalPrefix } = await import('../log.ts');
  const prefix = journalPrefix('error', process.env);
  process.stderr.write(`${prefix}kms-agent: ${explain(error).replaceAll('\n', `\n${prefix}`)}\n`);
  process.exit(exitCodeOf(error));
}
