import { createHash } from 'node:crypto';
import type { MessageType, SignatureFormat, SigningAlgorithm } from '@kms-agent/protocol';
import type { Command } from 'commander';
import { utf8 } from '../bytes.ts';
import { type ByteOptions, openInput, readBytes, readInput, UsageError, writeBytes } from './files.ts';
import { printJson, printResult } from './print.ts';
import { optionsOf, withClient } from './session.ts';

/** What the agent takes in one message. */
const maxMessageBytes = 65_536;

interface AadOptions {
  readonly aad?: string;
  readonly aadFile?: string;
}

interface KeyOption {
  readonly key?: string;
}

interface SignOptions extends KeyOption {
  readonly algorithm?: SigningAlgorithm;
  readonly format?: SignatureFormat;
  readonly keyVersion?: string;
  readonly digest?: boolean;
}

function readAad({ aad, aadFile }: AadOptions, inputFile?: string): { aad?: Uint8Array } {
  if (aadFile === '-' && (inputFile === undefined || inputFile === '-'))
    throw new UsageError('standard input is read once: --aad-file - needs a FILE for the input');
  if (aad !== undefined && aadFile !== undefined) throw new UsageError('--aad and --aad-file exclude each other');
  if (aad !== undefined) return { aad: utf8(aad) };
  return aadFile === undefined ? {} : { aad: readInput(aadFile) };
}

const chooseKey = ({ key }: KeyOption): { keyId?: string } => (key === undefined ? {} : { keyId: key });

function requireKey({ key }: KeyOption): { keyId: string } {
  if (key === undefined) throw new UsageError('this needs a key: -k ID or -k alias/NAME');
  return { keyId: key };
}

/** What is larger than a message is hashed here, as it is read; the signature is the same. */
async function readMessage(file: string | undefined, { digest = false }: SignOptions): Promise<{ message: Uint8Array; messageType: MessageType }> {
  if (digest) return { message: readInput(file), messageType: 'DIGEST' };
  const hash = createHash('sha256');
  const head: Buffer[] = [];
  let length = 0;
  for await (const chunk of openInput(file)) {
    hash.update(chunk);
    length += chunk.length;
    if (length <= maxMessageBytes) head.push(Buffer.from(chunk)); // a copy: the next one comes into the same memory
  }
  return length <= maxMessageBytes ? { message: Buffer.concat(head), messageType: 'RAW' } : { message: hash.digest(), messageType: 'DIGEST' };
}

function signSettings({ algorithm, format, keyVersion }: SignOptions): {
  algorithm?: SigningAlgorithm;
  signatureFormat?: SignatureFormat;
  keyVersionId?: string;
} {
  return { ...(algorithm ? { algorithm } : {}), ...(format ? { signatureFormat: format } : {}), ...(keyVersion ? { keyVersionId: keyVersion } : {}) };
}

function withBytes(command: Command): Command {
  return command
    .option('-o, --output <file>', 'write to a new 0600 file instead of standard output')
    .option('-f, --force', 'write over a file that is there')
    .option('--base64', 'base64 instead of binary');
}

const withKey = (command: Command): Command => command.option('-k, --key <key>', 'key id or alias/NAME (default: the default key where one serves)');

const withAad = (command: Command): Command =>
  command.option('--aad <text>', 'authenticated data as text; must be given again to decrypt').option('--aad-file <file>', 'authenticated data from a file');

const withSigning = (command: Command): Command =>
  withKey(command)
    .option('--algorithm <name>', 'ECDSA_SHA_256, RSA_PSS_SHA_256 or RSA_PKCS1_SHA_256 (default: the first that the key offers)')
    .option('--format <format>', 'DER or P1363, for EC keys (default: DER)')
    .option('--key-version <id>', 'a version of the key')
    .option('--digest', 'the input is the 32-byte SHA-256 itself');

/** encrypt and decrypt, in their advance forms. */
function addCiphers(program: Command): void {
  withAad(withKey(withBytes(program.command('encrypt').argument('[file]', 'what to encrypt, at most 64 KiB (default: standard input)'))))
    .description('encrypt with the newest version of a key')
    .addHelpText('after', '\nExample:\n  $ kms encrypt --aad backup-7 secret.txt -o secret.kms')
    .action(async (file: string | undefined, _options: object, command: Command) => {
      const options = optionsOf<ByteOptions & AadOptions & KeyOption>(command);
      const bound = readAad(options, file);
      const plaintext = readInput(file);
      if (plaintext.length > maxMessageBytes)
        throw new UsageError(`the input has ${plaintext.length} bytes, one message takes ${maxMessageBytes}; use kms encrypt-file`);
      const result = await withClient(command, (client) => client.advanceEncrypt({ plaintext, ...chooseKey(options), ...bound }));
      if (options.json) printJson(result);
      else writeBytes(result.ciphertextBlob, options);
    });
  withAad(withKey(withBytes(program.command('decrypt').argument('[file]', 'what kms encrypt wrote (default: standard input)'))))
    .description('decrypt what kms encrypt or an advance operation made')
    .addHelpText('after', '\nExample:\n  $ kms decrypt --aad backup-7 secret.kms')
    .action(async (file: string | undefined, _options: object, command: Command) => {
      const options = optionsOf<ByteOptions & AadOptions & KeyOption>(command);
      const bound = readAad(options, file);
      const ciphertextBlob = readBytes(file, options);
      const result = await withClient(command, (client) => client.advanceDecrypt({ ciphertextBlob, ...chooseKey(options), ...bound }));
      if (options.json) printJson(result);
      else writeBytes(result.plaintext, { ...options, base64: false });
    });
}

/** Moves a ciphertext without showing its plaintext. */
function addReEncryption(program: Command): void {
  withAad(withKey(withBytes(program.command('re-encrypt').argument('[file]', 'what kms encrypt wrote (default: standard input)'))))
    .requiredOption('--to <key>', 'key id or alias/NAME of the key to encrypt with')
    .option('--to-aad <text>', 'authenticated data of the new ciphertext; the old one is never carried over')
    .description('move a ciphertext to another key, or to the newest version of its own, inside the agent')
    .addHelpText('after', '\nExample:\n  $ kms re-encrypt --to alias/archive secret.kms -o secret.new.kms')
    .action(async (file: string | undefined, _options: object, command: Command) => {
      const options = optionsOf<ByteOptions & AadOptions & KeyOption & { to: string; toAad?: string }>(command);
      const destination = { destinationKeyId: options.to, ...(options.toAad === undefined ? {} : { destinationAad: utf8(options.toAad) }) };
      const bound = readAad(options, file);
      const source = { ciphertextBlob: readBytes(file, options), ...chooseKey(options), ...bound };
      const result = await withClient(command, (client) => client.reEncrypt({ ...source, ...destination }));
      if (options.json) printJson(result);
      else writeBytes(result.ciphertextBlob, options);
    });
}

/** sign, verify and public-key. */
function addSigning(program: Command): void {
  withSigning(withBytes(program.command('sign').argument('[file]', 'what to sign, of any size (default: standard input)')))
    .description('sign a file')
    .addHelpText('after', '\nExample:\n  $ kms sign -k alias/release archive.tar -o archive.tar.sig')
    .action(async (file: string | undefined, _options: object, command: Command) => {
      const options = optionsOf<ByteOptions & SignOptions>(command);
      const request = { ...requireKey(options), ...(await readMessage(file, options)), ...signSettings(options) };
      const result = await withClient(command, (client) => client.sign(request));
      if (options.json) printJson(result);
      else writeBytes(result.signature, options);
    });
  withSigning(
    withBytes(program.command('verify').argument('<signature>', 'file with the signature').argument('[file]', 'what was signed (default: standard input)')),
  )
    .description('say whether a signature is valid; exit status 0 yes, 1 no')
    .addHelpText('after', '\nExample:\n  $ kms verify -k alias/release archive.tar.sig archive.tar')
    .action(async (signatureFile: string, file: string | undefined, _options: object, command: Command) => {
      const options = optionsOf<ByteOptions & SignOptions>(command);
      const request = { ...requireKey(options), ...(await readMessage(file, options)), ...signSettings(options), signature: readBytes(signatureFile, options) };
      const result = await withClient(command, (client) => client.verify(request));
      if (options.json) printJson(result);
      else process.stdout.write(result.valid ? `valid: signed with version ${result.keyVersionId}\n` : 'NOT valid\n');
      if (!result.valid) process.exitCode = 1;
    });
  withKey(withBytes(program.command('public-key').option('--key-version <id>', 'a version of the key')))
    .description('print the public key as PEM')
    .addHelpText('after', '\nExample:\n  $ kms public-key -k alias/release -o release.pem')
    .action(async (_options: object, command: Command) => {
      const options = optionsOf<ByteOptions & SignOptions>(command);
      const version = options.keyVersion === undefined ? {} : { keyVersionId: options.keyVersion };
      const result = await withClient(command, (client) => client.getPublicKey({ ...requireKey(options), ...version }));
      if (options.json) printJson(result);
      else writeBytes(utf8(result.publicKey), { ...options, base64: false });
    });
}

/** Adds what people do every day. */
export function addEverydayCommands(program: Command): void {
  addCiphers(program);
  addReEncryption(program);
  addSigning(program);
  withBytes(program.command('random').argument('<bytes>', 'how many, 1 to 1024', Number))
    .description('random bytes from the agent')
    .addHelpText('after', '\nExample:\n  $ kms random 32 --base64')
    .action(async (numberOfBytes: number, _options: object, command: Command) => {
      const options = optionsOf<ByteOptions>(command);
      const result = await withClient(command, (client) => client.generateRandom({ numberOfBytes }));
      if (options.json) printJson(result);
      else writeBytes(result.random, options);
    });
  withAad(withKey(program.command('data-key')).option('--bytes <n>', 'length, 1 to 1024', Number, 32).option('--without-plaintext', 'answer only the blob'))
    .description('make a data key: the key itself and its blob, both as base64')
    .addHelpText('after', '\nExample:\n  $ kms data-key --aad disk-7 --json')
    .action(async (_options: object, command: Command) => {
      const options = optionsOf<AadOptions & KeyOption & { bytes: number; withoutPlaintext?: boolean }>(command);
      const params = { numberOfBytes: options.bytes, ...chooseKey(options), ...readAad(options, 'no input') };
      const result = await withClient(command, (client) =>
        options.withoutPlaintext ? client.generateDataKeyWithoutPlaintext(params) : client.advanceGenerateDataKey(params),
      );
      printResult(result, options.json);
    });
}
