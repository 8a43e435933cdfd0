import { constants, publicEncrypt } from 'node:crypto';
import type { ImportWrappingAlgorithm, ImportWrappingKeySpec } from '@kms-agent/protocol';
import type { Command } from 'commander';
import type { AgentClient } from '../../client.ts';
import { confirm } from '../confirm.ts';
import { readBytes, readInput, UsageError, writeBytes } from '../files.ts';
import { printResult } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { idOf, show } from './shared.ts';

/** Wraps material as the agent asked for it (RFC 8017 section 7.1). */
function wrapMaterial(publicKey: string, algorithm: ImportWrappingAlgorithm, material: Uint8Array): Uint8Array {
  if (algorithm === 'RSA_AES_KEY_WRAP_SHA_256')
    throw new UsageError(`this kms does not wrap with ${algorithm}; use kms key import-parameters and wrap it yourself`);
  return publicEncrypt({ key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256' }, material);
}

interface ImportOptions {
  readonly file: string;
  readonly base64?: boolean;
  readonly wrapped?: boolean;
  readonly token?: string;
  readonly expires?: string;
}

/** Wraps here, with fresh parameters, or takes what was wrapped elsewhere with the token that goes with it. */
async function prepare(
  client: AgentClient,
  keyId: string,
  { file, base64, wrapped, token }: ImportOptions,
): Promise<{ encryptedKeyMaterial: Uint8Array; importToken: Uint8Array }> {
  const bytes = readBytes(file, base64 ? { base64 } : {});
  if (wrapped) {
    if (token === undefined) throw new UsageError('--wrapped needs --token FILE, the import token that goes with the public key');
    return { encryptedKeyMaterial: bytes, importToken: readInput(token) };
  }
  const { publicKey, importToken, wrappingAlgorithm } = await client.getParametersForImport({ keyId });
  const encryptedKeyMaterial = wrapMaterial(publicKey, wrappingAlgorithm, bytes);
  bytes.fill(0);
  return { encryptedKeyMaterial, importToken };
}

function parseTime(text: string | undefined): { materialExpireTime?: string } {
  if (text === undefined) return {};
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw new UsageError(`--expires takes a time such as 2030-01-31 or 2030-01-31T12:00:00Z, not ${text}`);
  return { materialExpireTime: new Date(time).toISOString() };
}

/** Material from outside: `import` does the whole dance, `import-parameters` the part before a wrapping elsewhere. */
export function addMaterialCommands(key: Command): void {
  key
    .command('import <key>')
    .description('import raw key material into a key of origin EXTERNAL: gets parameters, wraps, imports')
    .requiredOption('--file <file>', 'the raw key, 32 bytes for AES_256; - for standard input')
    .option('--base64', 'the file is base64')
    .option('--wrapped', 'the file is wrapped already, with the public key of kms key import-parameters')
    .option('--token <file>', 'the import token that goes with --wrapped')
    .option('--expires <time>', 'when the material expires; without it never')
    .addHelpText(
      'after',
      '\nExamples:\n  $ kms key create --alias alias/default --origin EXTERNAL\n  $ kms key import alias/default --file raw.bin\n  $ kms key import alias/default --file wrapped.bin --wrapped --token token.bin',
    )
    .action(async (name: string, _options: object, command: Command) => {
      const options = optionsOf<ImportOptions>(command);
      const expiry = parseTime(options.expires);
      const result = await withClient(command, async (client) => {
        const keyId = await idOf(client, name);
        return await client.importKeyMaterial({ keyId, ...(await prepare(client, keyId, options)), ...expiry });
      });
      printResult(options.json ? result : { ...result.keyMetadata, unwrappedIn: result.unwrappedIn }, options.json);
    });
  key
    .command('import-parameters <key>')
    .description('get a public key to wrap material with elsewhere, and the import token; both are good for 24 hours')
    .requiredOption('--public-key <file>', 'where to write the public key, PEM')
    .requiredOption('--token <file>', 'where to write the import token')
    .option('--wrapping-spec <spec>', 'RSA_3072, RSA_4096 or RSA_2048')
    .option('-f, --force', 'write over files that are there')
    .addHelpText(
      'after',
      '\nExample:\n  $ kms key import-parameters alias/default --public-key wrap.pem --token token.bin\n  $ openssl pkeyutl -encrypt -pubin -inkey wrap.pem -in raw.bin -out wrapped.bin \\\n      -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256',
    )
    .action(async (keyId: string, _options: object, command: Command) => {
      const {
        publicKey,
        token,
        wrappingSpec,
        force = false,
        json,
      } = optionsOf<{ publicKey: string; token: string; wrappingSpec?: ImportWrappingKeySpec; force?: boolean }>(command);
      const result = await withClient(command, (client) =>
        client.getParametersForImport({ keyId, ...(wrappingSpec ? { wrappingKeySpec: wrappingSpec } : {}) }),
      );
      writeBytes(Buffer.from(result.publicKey), { output: publicKey, force });
      writeBytes(result.importToken, { output: token, force });
      const { keyId: id, wrappingAlgorithm, importTokenExpireTime } = result;
      printResult({ keyId: id, wrappingAlgorithm, importTokenExpireTime, publicKey, token }, json);
    });
  key
    .command('delete-material <key>')
    .description('delete imported material at once; the same can be imported again')
    .option('--yes', 'do not ask')
    .action(async (name: string, _options: object, command: Command) => {
      const keyId = await withClient(command, (client) => idOf(client, name));
      await confirm(command, `The material of ${keyId} is deleted now; without a copy of your own, all that it encrypted is lost for good.`);
      await show(command, (client) => client.deleteKeyMaterial({ keyId }));
    });
}
