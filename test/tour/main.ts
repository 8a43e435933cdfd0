import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/*
 * `npm start`: the main job on real input. Starts an agent in memory, works with it through the kms command line,
 * shows each command with its output, and fails if one of them answers otherwise than it should.
 */

const repository = fileURLToPath(new URL('../..', import.meta.url));
const kmsProgram = join(repository, 'client', 'bin', 'kms.js');
const agentProgram = join(repository, 'daemon', 'bin', 'kms-agent.js');
const folder = mkdtempSync(join(tmpdir(), 'kms-tour-'));
const socketPath = join(folder, 'agent.sock');
const input = join(repository, 'LICENSE');
const mayStay = process.env['CI'] !== 'true' && process.stdout.isTTY;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** What a step must show: its exit status, and words in its output. */
interface Expected {
  readonly status?: number;
  readonly words?: string;
}

class TourError extends Error {}

/** Shows a command and its output and compares both with what is expected. @returns standard output. */
function step(program: string, args: readonly string[], { status = 0, words = '' }: Expected = {}): string {
  const name = program === kmsProgram ? 'kms' : program;
  say(
    `\n$ ${[name, ...args]
      .map((word) => word.replace(folder, '$T').replace(repository, ''))
      .map((word) => (/[\s"{}]/.test(word) ? `'${word}'` : word))
      .join(' ')}`,
  );
  const command = program === kmsProgram ? ([process.execPath, [kmsProgram, ...args]] as const) : ([program, args] as const);
  const result = spawnSync(command[0], command[1], { encoding: 'utf8', env: { ...process.env, KMS_AGENT_SOCK: socketPath } });
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trimEnd();
  if (output) say(output.replaceAll(folder, '$T'));
  if (result.status !== status) throw new TourError(`${name} ended with ${result.status}, not ${status}${result.error ? `: ${result.error.message}` : ''}`);
  if (!output.includes(words)) throw new TourError(`the output does not say: ${words}`);
  return result.stdout;
}

const kms = (args: readonly string[], expected?: Expected): string => step(kmsProgram, args, expected);

function tour(): void {
  const at = (name: string): string => join(folder, name);
  say('\n# Two keys: one to encrypt, one to sign.');
  kms(['key', 'create', '--alias', 'alias/tour/data', '--description', 'Encrypts the tour'], { words: 'AES_256' });
  kms(['key', 'create', '--spec', 'EC_P256', '--alias', 'alias/tour/release'], { words: 'ECDSA_SHA_256' });

  say('\n# Encrypt a file of this repository, decrypt it again, and compare.');
  kms(['encrypt', '-k', 'alias/tour/data', '--aad', 'tour', input, '-o', at('LICENSE.kms')]);
  kms(['decrypt', '--aad', 'tour', at('LICENSE.kms'), '-o', at('LICENSE.again')]);
  step('cmp', [input, at('LICENSE.again')]);
  say('The same.');

  say('\n# A data key: encrypt as much as you like with it, keep only its blob.');
  kms(['data-key', '-k', 'alias/tour/data'], { words: 'ciphertextBlob' });

  say('\n# Sign the file; the agent verifies, and so does OpenSSL with nothing but the public key.');
  kms(['sign', '-k', 'alias/tour/release', input, '-o', at('LICENSE.sig')]);
  kms(['verify', '-k', 'alias/tour/release', at('LICENSE.sig'), input], { words: 'valid: signed with version' });
  kms(['public-key', '-k', 'alias/tour/release', '-o', at('release.pem')]);
  step('openssl', ['dgst', '-sha256', '-verify', at('release.pem'), '-signature', at('LICENSE.sig'), input], { words: 'Verified OK' });

  say('\n# The wrong AAD, and a ciphertext with one bit changed: one answer, which tells an attacker nothing.');
  kms(['decrypt', '--aad', 'another', at('LICENSE.kms')], { status: 1, words: 'ERR_INVALID_CIPHERTEXT' });
  const tampered = readFileSync(at('LICENSE.kms'));
  tampered[100] = (tampered[100] ?? 0) ^ 1;
  writeFileSync(at('tampered.kms'), tampered);
  kms(['decrypt', '--aad', 'tour', at('tampered.kms')], { status: 1, words: 'ERR_INVALID_CIPHERTEXT' });

  say('\n# Rotate: new data gets the new version, the old blob still opens.');
  kms(['key', 'rotate', 'alias/tour/data'], { words: 'primary' });
  kms(['decrypt', '--aad', 'tour', at('LICENSE.kms'), '-o', at('LICENSE.rotated')]);
  kms(['key', 'list'], { words: 'alias/tour/data' });
}

say('# An agent with its keys in memory: kms-agent dev');
const agent = spawn(process.execPath, [agentProgram, 'dev', '--socket', socketPath], { stdio: ['ignore', 'pipe', 'inherit'] });
const ended = new Promise<number>((resolve) => agent.on('exit', (code) => resolve(code ?? 1)));
const ready = new Promise<void>((resolve) => agent.stdout.once('data', () => resolve()));

/** Ends the agent and takes the tour's files away. */
async function leave(status: number): Promise<never> {
  agent.kill('SIGTERM');
  const agentStatus = await ended;
  rmSync(folder, { recursive: true, force: true });
  process.exit(status || agentStatus);
}

await Promise.race([ready, ended.then((code) => leave(code || 1))]);
try {
  tour();
  say('\nEvery step answered as it should.');
} catch (error) {
  if (!(error instanceof TourError)) throw error;
  say(`\nThe tour failed: ${error.message}`);
  await leave(1);
}
if (!mayStay) await leave(0);
say(
  `\nThe agent stays until Ctrl-C. From another terminal, in this folder:\n\n  export KMS_AGENT_SOCK=${socketPath}\n  npx kms key list\n  echo hello | npx kms encrypt --base64\n  npx kms --help\n`,
);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => void leave(0));
