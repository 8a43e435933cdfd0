import { decodeParams, encodeResult, isMethodName, type KeyMetadata, type KeySpec, type KeyslotType, type KeyUsage, methodNames } from '@kms-agent/protocol';
import { readNewSecret, readSecret } from '@kms-agent/protocol/terminal';
import { type Command, Option } from 'commander';
import type { AgentClient } from '../client.ts';
import { readInput, UsageError } from './files.ts';
import { printJson, printResult, printTable } from './print.ts';
import { optionsOf, withClient } from './session.ts';

/** Runs one call and prints what it answers. */
async function show(command: Command, work: (client: AgentClient) => Promise<object>): Promise<void> {
  printResult(await withClient(command, work), optionsOf<object>(command).json);
}

function parseFd(text: string): number {
  const fd = Number(text);
  if (Number.isInteger(fd) && fd >= 0) return fd;
  throw new UsageError(`--passphrase-fd takes the number of an open descriptor, not ${text}`);
}

const passphraseOption = (): Option => new Option('--passphrase-fd <n>', 'read the passphrase from this descriptor instead of the terminal').argParser(parseFd);

function parseTags(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) throw new UsageError(`a tag is NAME=VALUE, not ${pair}`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

interface CreateOptions {
  readonly spec: KeySpec;
  readonly usage?: KeyUsage;
  readonly alias?: string;
  readonly description?: string;
  readonly tag?: string[];
}

function addKeyCreation(key: Command): void {
  key
    .command('create')
    .description('make a key')
    .option('--spec <spec>', 'AES_256, RSA_2048, RSA_3072, EC_P256 or EC_P256K', 'AES_256')
    .option('--usage <usage>', 'ENCRYPT_DECRYPT or SIGN_VERIFY; needed for RSA')
    .option('--alias <name>', 'alias/NAME for it')
    .option('--description <text>', 'what it is for')
    .option('--tag <name=value...>', 'tags')
    .addHelpText('after', '\nExample:\n  $ kms key create --spec EC_P256 --alias alias/release')
    .action(async (_options: object, command: Command) => {
      const { spec, usage, alias, description, tag } = optionsOf<CreateOptions>(command);
      const optional = { ...(usage ? { keyUsage: usage } : {}), ...(alias ? { aliasName: alias } : {}), ...(description === undefined ? {} : { description }) };
      await show(command, (client) => client.createKey({ keySpec: spec, ...optional, ...(tag ? { tags: parseTags(tag) } : {}) }));
    });
}

function addKeyCommands(program: Command): void {
  const key = program.command('key').description('keys: make, look at, rotate');
  addKeyCreation(key);
  key
    .command('list')
    .description('list keys')
    .action(async (_options: object, command: Command) => {
      const keys = await withClient(command, (client) => collect(client.listAllKeys({ limit: 1000 })));
      if (optionsOf<object>(command).json) return printJson({ keys });
      printTable(
        ['KEY', 'SPEC', 'STATE', 'VERSIONS', 'ALIASES', 'DESCRIPTION'],
        keys.map((found: KeyMetadata) => [found.keyId, found.keySpec, found.keyState, found.keyVersionCount, found.aliases, found.description]),
      );
    });
  key
    .command('show <key>')
    .description('show a key')
    .action((keyId: string, _options: object, command: Command) => show(command, (client) => client.describeKey({ keyId })));
  key
    .command('describe <key> <description>')
    .description('change what a key says it is for')
    .action((keyId: string, description: string, _options: object, command: Command) =>
      show(command, (client) => client.updateKeyDescription({ keyId, description })),
    );
  key
    .command('rotate <key>')
    .description('make a new version; new ciphertexts and signatures use it, old ones stay good')
    .option('--no-primary', 'make it without using it yet: publish its public key first')
    .action((keyId: string, _options: object, command: Command) =>
      show(command, (client) => client.createKeyVersion({ keyId, setPrimary: optionsOf<{ primary: boolean }>(command).primary })),
    );
  key
    .command('versions <key>')
    .description('list the versions of a key')
    .action(async (keyId: string, _options: object, command: Command) => {
      const keyVersions = await withClient(command, (client) => collect(client.listAllKeyVersions({ keyId, limit: 1000 })));
      if (optionsOf<object>(command).json) return printJson({ keyVersions });
      printTable(
        ['VERSION', 'CREATED', 'INITIAL', 'PRIMARY', 'USES'],
        keyVersions.map((version) => [version.keyVersionId, version.creationTime, version.initial, version.primary, version.useCount]),
      );
    });
  key
    .command('set-primary <key> <version>')
    .description('choose the version that encrypts and signs from now on')
    .action((keyId: string, keyVersionId: string, _options: object, command: Command) =>
      show(command, (client) => client.setPrimaryKeyVersion({ keyId, keyVersionId })),
    );
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** Aliases are made for an id; a person may name the key by another alias. */
const idOf = async (client: AgentClient, key: string): Promise<string> => (await client.describeKey({ keyId: key })).keyId;

function addAliasCommands(program: Command): void {
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

function addKeyslotCommands(program: Command): void {
  const keyslot = program.command('keyslot').description('ways into the vault');
  keyslot
    .command('list')
    .description('list them')
    .action(async (_options: object, command: Command) => {
      const { keyslots } = await withClient(command, (client) => client.listKeyslots());
      if (optionsOf<object>(command).json) return printJson({ keyslots });
      printTable(
        ['KEYSLOT', 'TYPE', 'LABEL', 'CREATED'],
        keyslots.map(({ keyslotId, type, label, creationTime }) => [keyslotId, type, label, creationTime]),
      );
    });
  keyslot
    .command('add <type>')
    .description('add one: passphrase or recovery')
    .option('--label <text>', 'what to call it')
    .addOption(passphraseOption())
    .option('--new-passphrase-fd <n>', 'read the new passphrase from this descriptor', parseFd)
    .action(async (type: KeyslotType, _options: object, command: Command) => {
      const { label, passphraseFd, newPassphraseFd } = optionsOf<{ label?: string; passphraseFd?: number; newPassphraseFd?: number }>(command);
      const proof = { passphrase: await readSecret('Passphrase of an existing keyslot: ', passphraseFd) };
      const secret = type === 'passphrase' ? { passphrase: await readNewSecret('New passphrase: ', newPassphraseFd) } : {};
      await show(command, (client) => client.addKeyslot({ type, proof, ...secret, ...(label === undefined ? {} : { label }) }));
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

function addAgentCommands(program: Command): void {
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

/** Adds what administrators do. */
export function addManagementCommands(program: Command): void {
  addAgentCommands(program);
  addKeyCommands(program);
  addAliasCommands(program);
  addKeyslotCommands(program);
}
