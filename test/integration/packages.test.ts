import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cleanEnv, repository, TempFolder, TestAgent } from '../kit/agent.ts';

/** Node 22, the oldest that the client runs on; the other is the one that runs this test. */
const oldNode = `node-linux-${process.arch}@22`;

let folder: TempFolder;
let agent: TestAgent;
beforeAll(async () => {
  folder = new TempFolder();
  const npm = (...args: string[]): Buffer => execFileSync('npm', args, { cwd: folder.path, env: cleanEnv(), stdio: ['ignore', 'pipe', 'pipe'] });
  for (const name of ['protocol', 'client', 'daemon']) npm('pack', '--silent', join(repository, name));
  writeFileSync(folder.join('package.json'), '{"private": true}');
  const packed = readdirSync(folder.path).filter((name) => name.endsWith('.tgz'));
  npm('install', '--no-audit', '--no-fund', '--omit=optional', ...packed.map((name) => `./${name}`), oldNode);
  agent = await TestAgent.dev();
}, 180_000);
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

/** Runs a file of the reader's in the empty project. */
function runIn(node: string, name: string, text: string): string {
  writeFileSync(folder.join(name), text);
  const { status, stdout, stderr } = spawnSync(node, [folder.join(name)], {
    cwd: folder.path,
    encoding: 'utf8',
    env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }),
  });
  if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr}`);
  return stdout.trim();
}

const body = `(async () => {
  const kms = await connect();
  const sealed = await kms.advanceEncrypt({ plaintext: utf8('hello') });
  console.log(text((await kms.advanceDecrypt(sealed)).plaintext));
  kms.close();
})();`;

test.each(['this Node', 'Node 22'])('the packed client: works from ESM and from require on %s', (which) => {
  const node = which === 'Node 22' ? folder.join('node_modules', '.bin', 'node') : process.execPath;
  expect(runIn(node, 'a.mjs', `import { connect, text, utf8 } from '@kms-agent/client';\n${body}`)).toBe('hello');
  expect(runIn(node, 'b.cjs', `const { connect, text, utf8 } = require('@kms-agent/client');\n${body}`)).toBe('hello');
});

test.each(['this Node', 'Node 22'])('the packed client: @kms-agent/client/age works from ESM and from require on %s', (which) => {
  const node = which === 'Node 22' ? folder.join('node_modules', '.bin', 'node') : process.execPath;
  const code = `(async () => {
  const kms = await connect();
  const pieces = [];
  for await (const piece of decryptStream(kms, encryptStream(kms, new Blob(['hello']).stream()))) pieces.push(piece);
  console.log(Buffer.concat(pieces).toString());
  kms.close();
})();`;
  const names = ['{ connect }', '{ decryptStream, encryptStream }'] as const;
  expect(runIn(node, 'd.mjs', `import ${names[0]} from '@kms-agent/client';\nimport ${names[1]} from '@kms-agent/client/age';\n${code}`)).toBe('hello');
  expect(runIn(node, 'e.cjs', `const ${names[0]} = require('@kms-agent/client');\nconst ${names[1]} = require('@kms-agent/client/age');\n${code}`)).toBe(
    'hello',
  );
});

test('the packed client: TypeScript sees its types, and that a result is a request of its inverse', () => {
  const source = `import { connect, isAgentError } from '@kms-agent/client';
import { decryptStream, encryptFile } from '@kms-agent/client/age';
const kms = await connect();
const signed = await kms.sign({ keyId: 'alias/x', message: new Uint8Array(1) });
const { valid }: { valid: boolean } = await kms.verify({ ...signed, message: new Uint8Array(1) });
await kms.decrypt({ ...(await kms.encrypt({ plaintext: new Uint8Array(1) })), aad: new Uint8Array(1) });
await encryptFile(kms, 'a', 'b', { keyId: 'alias/x', recipients: ['age1x'], onProgress: ({ readBytes, totalBytes }) => readBytes / totalBytes });
const pieces: AsyncIterable<Uint8Array> = decryptStream(kms, new Blob(['x']).stream());
export { pieces };
// @ts-expect-error a key id is text
await kms.describeKey({ keyId: valid });
export const narrowed = (error: unknown): 'ERR_BUSY' | undefined => (isAgentError(error, 'ERR_BUSY') ? error.code : undefined);
`;
  writeFileSync(folder.join('c.mts'), source);
  const options = [
    '--ignoreConfig',
    '--noEmit',
    '--strict',
    '--exactOptionalPropertyTypes',
    '--module',
    'nodenext',
    '--target',
    'es2024',
    '--types',
    'node',
    '--typeRoots',
    join(repository, 'node_modules/@types'),
  ];
  const { status, stdout } = spawnSync(process.execPath, [join(repository, 'node_modules/typescript/bin/tsc'), ...options, 'c.mts'], {
    cwd: folder.path,
    encoding: 'utf8',
  });
  expect([status, stdout]).toEqual([0, '']);
});

test('the packed command lines: run from the empty project', () => {
  const env = cleanEnv({ KMS_AGENT_SOCK: agent.socketPath });
  const version = spawnSync(process.execPath, [folder.join('node_modules/@kms-agent/daemon/bin/kms-agent.js'), '--version'], { encoding: 'utf8', env });
  expect([version.status, version.stdout.trim()]).toEqual([0, '0.1.0']);
  const status = spawnSync(process.execPath, [folder.join('node_modules/@kms-agent/client/bin/kms.js'), 'status', '--json'], { encoding: 'utf8', env });
  expect(JSON.parse(status.stdout)).toMatchObject({ state: 'UNLOCKED' });
});

test('on an old Node: both bins say which one they need', () => {
  for (const [name, program] of [['kms-agent', 'daemon/bin/kms-agent.js']] as const) {
    const { status, stderr } = spawnSync(folder.join('node_modules', '.bin', 'node'), [join(repository, program)], { encoding: 'utf8', env: cleanEnv() });
    expect([status, stderr]).toEqual([2, expect.stringMatching(new RegExp(`^${name}: needs Node 24.15 or newer, this is 22\\.`))]);
  }
});
