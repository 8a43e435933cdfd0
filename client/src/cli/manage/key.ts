import type { KeyFilters, KeyMetadata, KeySpec, KeyState, KeyUsage, Origin } from '@kms-agent/protocol';
import type { Command } from 'commander';
import type { AgentClient } from '../../client.ts';
import { confirm } from '../confirm.ts';
import { UsageError } from '../files.ts';
import { formatKeyPage } from '../key-page.ts';
import { escapeControls, printJson, printTable } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { addMaterialCommands } from './material.ts';
import { collect, idOf, show } from './shared.ts';

/** Runs one call that answers a key, and shows it as a page. */
async function showKey(command: Command, work: (client: AgentClient) => Promise<KeyMetadata>): Promise<void> {
  const key = await withClient(command, work);
  if (optionsOf<object>(command).json) return printJson(key);
  process.stdout.write(formatKeyPage(key, Date.now()));
}

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
  readonly origin?: Origin;
  readonly hsm?: boolean;
  readonly token?: string;
  readonly rotate?: string;
  readonly unlockLifetime?: string;
  readonly protect?: boolean;
}

function addCreation(key: Command): void {
  key
    .command('create')
    .description('make a key')
    .option('--spec <spec>', 'AES_256, RSA_2048, RSA_3072, EC_P256 or EC_P256K; in a token also AES_192, AES_128 and RSA_4096', 'AES_256')
    .option('--usage <usage>', 'ENCRYPT_DECRYPT or SIGN_VERIFY; needed for RSA')
    .option('--alias <name>', 'alias/NAME for it; alias/default makes the default key')
    .option('--description <text>', 'what it is for')
    .option('--tag <name=value...>', 'tags')
    .option('--origin <origin>', 'GENERATED, or EXTERNAL for material that you import')
    .option('--hsm', 'make it in a token')
    .option('--token <name>', 'the token, where there are several; implies --hsm')
    .option('--rotate <interval>', 'new version by itself, every 7d to 730d')
    .option('--unlock-lifetime <time>', 'usable for so long after each unlock, 1s to 365d')
    .option('--protect', 'protect it against deletion')
    .addHelpText(
      'after',
      '\nExamples:\n  $ kms key create --spec EC_P256 --alias alias/release\n  $ kms key create --alias alias/app --rotate 90d --protect\n  $ kms key create --hsm --spec EC_P256 --alias alias/signing\n  $ kms key create --alias alias/payroll --unlock-lifetime 15m',
    )
    .action(async (_options: object, command: Command) => {
      const { spec, usage, alias, description, tag, origin, hsm, token, rotate, unlockLifetime, protect } = optionsOf<CreateOptions>(command);
      await showKey(command, (client) =>
        client.createKey({
          keySpec: spec,
          ...(usage ? { keyUsage: usage } : {}),
          ...(alias ? { aliasName: alias } : {}),
          ...(description === undefined ? {} : { description }),
          ...(origin ? { origin } : {}),
          ...(hsm || token !== undefined ? { protectionLevel: 'HSM' } : {}),
          ...(token === undefined ? {} : { token }),
          ...(rotate ? { rotationInterval: rotate } : {}),
          ...(unlockLifetime ? { unlockLifetime } : {}),
          ...(protect ? { deletionProtection: true } : {}),
          ...(tag ? { tags: parseTags(tag) } : {}),
        }),
      );
    });
}

interface ListOptions {
  readonly state?: KeyState[];
  readonly spec?: KeySpec[];
  readonly alias?: string[];
  readonly tag?: string[];
}

function addLooking(key: Command): void {
  key
    .command('list')
    .description('list keys')
    .option('--state <state...>', 'only Enabled, Disabled, PendingDeletion, PendingImport or Unavailable')
    .option('--spec <spec...>', 'only these specs')
    .option('--alias <prefix...>', 'only keys with an alias that begins so')
    .option('--tag <name=value...>', 'only keys with all of these tags')
    .addHelpText('after', '\nExamples:\n  $ kms key list --state PendingDeletion\n  $ kms key list --tag team=web --json')
    .action(async (_options: object, command: Command) => {
      const { state, spec, alias, tag } = optionsOf<ListOptions>(command);
      const filters: KeyFilters = {
        ...(state ? { keyState: state } : {}),
        ...(spec ? { keySpec: spec } : {}),
        ...(alias ? { aliasPrefix: alias } : {}),
        ...(tag ? { tags: parseTags(tag) } : {}),
      };
      const keys = await withClient(command, (client) => collect(client.listAllKeys({ limit: 1000, filters })));
      if (optionsOf<object>(command).json) return printJson({ keys });
      printTable(
        ['KEY', 'SPEC', 'STATE', 'VERSIONS', 'ALIASES', 'DESCRIPTION'],
        keys.map((found) => [found.keyId, found.keySpec, found.keyState, found.keyVersionCount, found.aliases, found.description]),
      );
    });
  key
    .command('show <key>')
    .description('show a key as a page')
    .action((keyId: string, _options: object, command: Command) => showKey(command, (client) => client.describeKey({ keyId })));
}

function addChanging(key: Command): void {
  key
    .command('describe <key> <description>')
    .description('change what a key says it is for')
    .action((keyId: string, description: string, _options: object, command: Command) =>
      showKey(command, (client) => client.updateKeyDescription({ keyId, description })),
    );
  key
    .command('tag <key> <name=value...>')
    .description('add tags')
    .action((keyId: string, pairs: string[], _options: object, command: Command) =>
      showKey(command, (client) => client.tagKey({ keyId, tags: parseTags(pairs) })),
    );
  key
    .command('untag <key> <name...>')
    .description('remove tags')
    .action((keyId: string, tagKeys: string[], _options: object, command: Command) => showKey(command, (client) => client.untagKey({ keyId, tagKeys })));
  key
    .command('enable <key>')
    .description('let a disabled key be used again')
    .action((name: string, _options: object, command: Command) => showKey(command, async (client) => client.enableKey({ keyId: await idOf(client, name) })));
  key
    .command('disable <key>')
    .description('stop every use of a key until it is enabled; nothing is lost')
    .action((name: string, _options: object, command: Command) => showKey(command, async (client) => client.disableKey({ keyId: await idOf(client, name) })));
  key
    .command('protect <key>')
    .description('protect a key against deletion')
    .option('--why <text>', 'the reason, shown with the key')
    .action((name: string, _options: object, command: Command) => {
      const { why } = optionsOf<{ why?: string }>(command);
      return showKey(command, async (client) =>
        client.setDeletionProtection({ keyId: await idOf(client, name), enabled: true, ...(why === undefined ? {} : { description: why }) }),
      );
    });
  key
    .command('unprotect <key>')
    .description('lift the protection against deletion')
    .action((name: string, _options: object, command: Command) =>
      showKey(command, async (client) => client.setDeletionProtection({ keyId: await idOf(client, name), enabled: false })),
    );
}

function parseDays(text: string): number {
  const days = Number(text);
  if (Number.isInteger(days) && days >= 7 && days <= 366) return days;
  throw new UsageError(`--days takes 7 to 366, not ${text}`);
}

/** What a person knows a key by, beside its number. */
function describeForQuestion({ aliases, description, lastUsedTime }: KeyMetadata): string {
  const known = [...aliases, ...(description === '' ? [] : [`"${description}"`]), `last used ${lastUsedTime ?? 'never'}`];
  return escapeControls(known.join(', '));
}

function addDeletion(key: Command): void {
  key
    .command('delete <key>')
    .description('destroy a key for good when its window ends; until then kms key cancel-deletion takes it back')
    .option('--days <n>', 'length of the window, 7 to 366', parseDays, 30)
    .option('--yes', 'do not ask')
    .addHelpText('after', '\nExample:\n  $ kms key delete alias/old --days 7 --yes')
    .action(async (name: string, _options: object, command: Command) => {
      const { days } = optionsOf<{ days: number }>(command);
      const found = await withClient(command, (client) => client.describeKey({ keyId: name }));
      const { keyId } = found;
      await confirm(
        command,
        `The key ${keyId} (${describeForQuestion(found)}) cannot be used from now on, and in ${days} days all that it encrypted is lost for good.`,
      );
      await showKey(command, (client) => client.scheduleKeyDeletion({ keyId, pendingWindowInDays: days }));
    });
  key
    .command('cancel-deletion <key>')
    .description('take a scheduled deletion back')
    .action((name: string, _options: object, command: Command) =>
      showKey(command, async (client) => client.cancelKeyDeletion({ keyId: await idOf(client, name) })),
    );
}

function addVersions(key: Command): void {
  key
    .command('rotate <key>')
    .description('make a new version; new ciphertexts and signatures use it, old ones stay good')
    .option('--no-primary', 'make it without using it yet: publish its public key first')
    .action((keyId: string, _options: object, command: Command) =>
      show(command, (client) => client.createKeyVersion({ keyId, setPrimary: optionsOf<{ primary: boolean }>(command).primary })),
    );
  key
    .command('rotation <key> <interval>')
    .description('rotate by itself every 7d to 730d, off, or on again')
    .addHelpText('after', '\nExamples:\n  $ kms key rotation alias/app 90d\n  $ kms key rotation alias/app off')
    .action((keyId: string, interval: string, _options: object, command: Command) =>
      showKey(command, (client) =>
        client.updateRotationPolicy(
          interval === 'off' ? { keyId, enabled: false } : { keyId, enabled: true, ...(interval === 'on' ? {} : { rotationInterval: interval }) },
        ),
      ),
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
    .command('version <key> <version>')
    .description('show one version of a key')
    .action((keyId: string, keyVersionId: string, _options: object, command: Command) =>
      show(command, (client) => client.describeKeyVersion({ keyId, keyVersionId })),
    );
  key
    .command('set-primary <key> <version>')
    .description('choose the version that encrypts and signs from now on')
    .action((keyId: string, keyVersionId: string, _options: object, command: Command) =>
      showKey(command, (client) => client.setPrimaryKeyVersion({ keyId, keyVersionId })),
    );
}

/** Keys: make, look at, change, rotate, import into, delete. */
export function addKeyCommands(program: Command): void {
  const key = program.command('key').description('keys: make, look at, change, rotate, import into, delete');
  addCreation(key);
  addLooking(key);
  addChanging(key);
  addVersions(key);
  addMaterialCommands(key);
  addDeletion(key);
}
