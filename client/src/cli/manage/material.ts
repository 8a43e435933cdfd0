import type { ImportKeyMaterialParams, ImportWrappingAlgorithm, ImportWrappingKeySpec, KeyMetadata } from '@kms-agent/protocol';
import type { Command } from 'commander';
import type { AgentClient } from '../../client.ts';
import { confirm } from '../confirm.ts';
import { readBytes, readInput, UsageError, writeBytes } from '../files.ts';
import { printResult } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { parseExpiry } from './expiry.ts';
import { idOf, show } from './shared.ts';
import { readMaterial, wrapMaterial } from './wrapping.ts';

type WrappedMaterial = Pick<ImportKeyMaterialParams, 'encryptedKeyMaterial' | 'importToken'>;

interface ImportOptions {
  readonly file: string;
  readonly base64?: boolean;
  readonly wrapped?: boolean;
  readonly token?: string;
  readonly expires?: string;
}

/** Wraps with fresh parameters. What was read is overwritten, whatever comes of it. */
export async function wrapFile(
  client: Pick<AgentClient, 'getParametersForImport'>,
  { keyId, keySpec }: Pick<KeyMetadata, 'keyId' | 'keySpec'>,
  file: Uint8Array,
): Promise<WrappedMaterial> {
  let material: Uint8Array | undefined;
  try {
    material = readMaterial(file, keySpec);
    const { publicKey, importToken, wrappingAlgorithm } = await client.getParametersForImport({ keyId });
    return { encryptedKeyMaterial: wrapMaterial(publicKey, wrappingAlgorithm, material), importToken };
  } finally {
    material?.fill(0);
    file.fill(0);
  }
}

/** Wraps here, or takes what was wrapped elsewhere with the token that goes with it. */
async function prepare(client: AgentClient, key: KeyMetadata, { file, base64, wrapped, token }: ImportOptions): Promise<WrappedMaterial> {
  const bytes = readBytes(file, base64 ? { base64 } : {});
  if (!wrapped) return await wrapFile(client, key, bytes);
  if (token === undefined) throw new UsageError('--wrapped needs --token FILE, the import token that goes with the public key');
  return { encryptedKeyMaterial: bytes, importToken: readInput(token) };
}

/** How the OpenSSL program wraps a private key; the same as protocol/README.md shows. */
const twofoldSteps = [
  '$ kms key import-parameters alias/mine --public-key wrap.pem --token token.bin --wrapping-algorithm RSA_AES_KEY_WRAP_SHA_256',
  '$ openssl rand -out aes.bin 32',
  '$ openssl pkeyutl -encrypt -pubin -inkey wrap.pem -in aes.bin -out wrapped.bin \\',
  '    -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256',
  '$ openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der',
  `$ openssl enc -id-aes256-wrap-pad -iv A65959A6 -K "$(od -An -v -tx1 aes.bin | tr -d ' \\n')" -in key.der >> wrapped.bin`,
  '$ kms key import alias/mine --file wrapped.bin --wrapped --token token.bin',
];

/** Material from outside: `import` does the whole dance, `import-parameters` the part before a wrapping elsewhere. */
export function addMaterialCommands(key: Command): void {
  key
    .command('import <key>')
    .description('import key material into a key of origin EXTERNAL: gets parameters, wraps, imports')
    .requiredOption('--file <file>', 'the raw key, 32 bytes for AES_256, or a private key as PKCS#8 DER or PEM; - for standard input')
    .option('--base64', 'the file is base64')
    .option('--wrapped', 'the file is wrapped already, with the public key of kms key import-parameters')
    .option('--token <file>', 'the import token that goes with --wrapped')
    .option('--expires <time>', 'when the material expires: a date (its midnight in UTC) or RFC 3339 with a zone; without it never')
    .addHelpText(
      'after',
      '\nExamples:\n  $ kms key create --alias alias/default --origin EXTERNAL\n  $ kms key import alias/default --file raw.bin\n  $ kms key import alias/default --file wrapped.bin --wrapped --token token.bin',
    )
    .action(async (name: string, _options: object, command: Command) => {
      const options = optionsOf<ImportOptions>(command);
      const expiry = options.expires === undefined ? {} : { materialExpireTime: parseExpiry(options.expires) };
      const result = await withClient(command, async (client) => {
        const key = await client.describeKey({ keyId: name });
        return await client.importKeyMaterial({ keyId: key.keyId, ...(await prepare(client, key, options)), ...expiry });
      });
      printResult(options.json ? result : { ...result.keyMetadata, unwrappedIn: result.unwrappedIn }, options.json);
    });
  key
    .command('import-parameters <key>')
    .description('get a public key to wrap material with elsewhere, and the import token; both are good for 24 hours')
    .requiredOption('--public-key <file>', 'where to write the public key, PEM')
    .requiredOption('--token <file>', 'where to write the import token')
    .option('--wrapping-spec <spec>', 'RSA_3072, RSA_4096 or RSA_2048')
    .option('--wrapping-algorithm <name>', 'RSAES_OAEP_SHA_256, RSA_AES_KEY_WRAP_SHA_256 or RSAES_OAEP_SHA_1; without it the best for the key')
    .option('-f, --force', 'write over files that are there')
    .addHelpText(
      'after',
      '\nExample:\n  $ kms key import-parameters alias/default --public-key wrap.pem --token token.bin\n  $ openssl pkeyutl -encrypt -pubin -inkey wrap.pem -in raw.bin -out wrapped.bin \\\n      -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256\n\nA private key for a token, RSA_AES_KEY_WRAP_SHA_256:\n' +
        twofoldSteps.map((line) => `  ${line}\n`).join(''),
    )
    .action(async (keyId: string, _options: object, command: Command) => {
      const {
        publicKey,
        token,
        wrappingSpec,
        wrappingAlgorithm: asked,
        force = false,
        json,
      } = optionsOf<{ publicKey: string; token: string; wrappingSpec?: ImportWrappingKeySpec; wrappingAlgorithm?: ImportWrappingAlgorithm; force?: boolean }>(
        command,
      );
      const result = await withClient(command, (client) =>
        client.getParametersForImport({ keyId, ...(wrappingSpec ? { wrappingKeySpec: wrappingSpec } : {}), ...(asked ? { wrappingAlgorithm: asked } : {}) }),
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
