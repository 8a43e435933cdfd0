import { createWriteStream, statSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { AsideFile } from '../aside.ts';
import type { AgentClient } from '../client.ts';
import { checkOutput, isSpecial, openInput, UsageError } from './files.ts';
import { showProgress } from './progress.ts';
import { optionsOf, withClient } from './session.ts';

interface LargeFileOptions {
  readonly output?: string;
  readonly force?: boolean;
  readonly key?: string;
  readonly recipient?: readonly string[];
}

const endingSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Ends by the signal as any program does, but first tidies up. */
function beforeSignal(tidy: () => void): Disposable {
  const end = (signal: NodeJS.Signals): void => {
    tidy();
    for (const name of endingSignals) process.removeListener(name, end);
    process.kill(process.pid, signal);
  };
  for (const name of endingSignals) process.on(name, end);
  return {
    [Symbol.dispose]: () => {
      for (const name of endingSignals) process.removeListener(name, end);
    },
  };
}

async function writeFile(path: string, source: AsyncIterable<Uint8Array>, force: boolean): Promise<void> {
  const opened: AsideFile[] = [];
  using _ = beforeSignal(() => opened[0]?.abandon()); // before there is a file: between the two a signal would leave it
  using file = new AsideFile(path);
  opened.push(file);
  await file.write(source);
  file.keep(force);
}

async function writeOutput(source: AsyncIterable<Uint8Array>, { output, force = false }: LargeFileOptions): Promise<void> {
  if (output === undefined || output === '-') await pipeline(source, process.stdout, { end: false });
  else if (isSpecial(output)) await pipeline(source, createWriteStream(output));
  else await writeFile(output, source, force);
}

/** Before anything is read or asked of the agent. */
function checkTarget({ output, force = false }: LargeFileOptions): void {
  if (output !== undefined && output !== '-') {
    if (!isSpecial(output)) checkOutput(output, force);
  } else if (process.stdout.isTTY) throw new UsageError('what is large does not go to a terminal; use -o FILE or a pipe');
}

const sizeOf = (file: string | undefined): number | undefined =>
  file === undefined || file === '-' ? undefined : statSync(file, { throwIfNoEntry: false })?.size;

type Transform = (client: AgentClient, source: AsyncIterable<Uint8Array>, options: LargeFileOptions) => Promise<AsyncIterable<Uint8Array>>;

const chooseKey = ({ key }: LargeFileOptions): { keyId?: string } => (key === undefined ? {} : { keyId: key });

/** The package with the format of age takes as long to load as all the rest of kms: only for who uses it. */
const encrypt: Transform = async (client, source, options) => {
  const { encryptStream } = await import('../age/index.ts');
  return encryptStream(client, source, { ...chooseKey(options), ...(options.recipient ? { recipients: options.recipient } : {}) });
};

const decrypt: Transform = async (client, source, options) => {
  const { decryptStream } = await import('../age/index.ts');
  return decryptStream(client, source, chooseKey(options));
};

const run =
  (transform: Transform) =>
  async (file: string | undefined, _options: object, command: Command): Promise<void> => {
    const options = optionsOf<LargeFileOptions>(command);
    checkTarget(options);
    const source = showProgress(openInput(file), sizeOf(file));
    await withClient(command, async (client) => writeOutput(await transform(client, source, options), options));
  };

const withFiles = (command: Command): Command =>
  command.option('-o, --output <file>', 'write to a new 0600 file, which appears when it is whole').option('-f, --force', 'write over a file that is there');

const collectRecipients = (recipient: string, before: readonly string[] = []): string[] => [...before, recipient];

/** encrypt-file and decrypt-file: of any length, in constant memory, in the format of age. */
export function addLargeFileCommands(program: Command): void {
  withFiles(program.command('encrypt-file').argument('[file]', 'what to encrypt, of any size (default: standard input)'))
    .option('-k, --key <key>', 'key id or alias/NAME of a symmetric key (default: the default key)')
    .option('-r, --recipient <age1>', 'also for this recipient of age, who needs no agent: a key in a safe (repeatable)', collectRecipients)
    .description('encrypt a file of any size, in the format of age')
    .addHelpText('after', '\nExample:\n  $ kms encrypt-file dump.sql -o dump.sql.age')
    .action(run(encrypt));
  withFiles(program.command('decrypt-file').argument('[file]', 'what kms encrypt-file wrote (default: standard input)'))
    .option('-k, --key <key>', 'only what this key encrypted')
    .description('decrypt what kms encrypt-file wrote; with -o the file appears only when all of it is proven')
    .addHelpText('after', '\nExample:\n  $ kms decrypt-file dump.sql.age -o dump.sql')
    .action(run(decrypt));
}
