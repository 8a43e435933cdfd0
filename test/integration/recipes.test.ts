import { execFileSync, spawnSync } from 'node:child_process';
import { createCipheriv, createPublicKey, randomBytes, verify } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AgentClient } from '@kms-agent/client';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { agentProgram, cleanEnv, kmsProgram, repository, TempFolder, TestAgent } from '../kit/agent.ts';

vi.setConfig({ testTimeout: 180_000 }); // many processes, one after the other

const readme = readFileSync(join(repository, 'client', 'README.md'), 'utf8');

/** The blocks of code under a heading, in one language. */
function blocksUnder(heading: string, language: 'js' | 'sh' | 'ini'): string[] {
  const section = readme.split(/^### /m).find((text) => text.startsWith(`${heading}\n`)) ?? '';
  return [...section.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].map(([, code]) => code ?? '');
}

let folder: TempFolder;
let agent: TestAgent;
let kms: AgentClient;
beforeEach(async () => {
  folder = new TempFolder();
  symlinkSync(join(repository, 'node_modules'), folder.join('node_modules'));
  mkdirSync(folder.join('bin'));
  for (const [name, program] of [
    ['kms', kmsProgram],
    ['kms-agent', agentProgram],
  ] as const) {
    writeFileSync(folder.join('bin', name), `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`);
    chmodSync(folder.join('bin', name), 0o755);
  }
  agent = await TestAgent.dev();
  kms = await agent.client();
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

/** Runs a program in the reader's folder. @returns what it printed. */
function runIn(program: string, ...args: readonly string[]): string {
  const env = cleanEnv({ KMS_AGENT_SOCK: agent.socketPath, PATH: `${folder.join('bin')}:${process.env['PATH']}` });
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: folder.path, encoding: 'utf8', env });
  expect(status, stderr).toBe(0);
  return stdout;
}

const runShell = (code = 'exit 9'): string => runIn('bash', '--norc', '-euo', 'pipefail', '-c', code);

function runJs(code = 'process.exit(9)'): string {
  writeFileSync(folder.join('recipe.mjs'), code);
  return runIn(process.execPath, folder.join('recipe.mjs'));
}

const read = (name: string): Buffer => readFileSync(folder.join(name));

test('client/README.md, a large file: on the command line and in a program', () => {
  writeFileSync(folder.join('dump.sql'), randomBytes(200_000));
  mkdirSync(folder.join('src'));
  writeFileSync(folder.join('src', 'a.ts'), '');
  const [commands] = blocksUnder('A large file', 'sh');
  expect(runShell(commands)).toContain('src/a.ts');
  for (const name of ['dump.sql.age', 'dump.again.sql']) expect(statSync(folder.join(name)).mode & 0o777).toBe(0o600);
  expect(read('dump.again.sql').equals(read('dump.sql'))).toBe(true);
  execFileSync('rm', [folder.join('dump.sql.age'), folder.join('dump.again.sql')]);
  runJs(blocksUnder('A large file', 'js')[0]);
  expect(read('dump.again.sql').equals(read('dump.sql'))).toBe(true);
  expect(runShell('kms decrypt-file stream.age | cmp - dump.sql')).toBe('');
});

test.skipIf(!existsSync('/usr/bin/age'))('client/README.md, a large file: a key in a safe (needs age)', () => {
  writeFileSync(folder.join('dump.sql'), randomBytes(200_000));
  runShell(blocksUnder('A large file', 'sh')[1]);
});

test('client/README.md, a field of a database row', async () => {
  expect(runJs(blocksUnder('A field of a database row', 'js')[0])).toBe('4111 1111 1111 1111\n');
});

test('client/README.md, a JWT: ES256, ES256K, RS256 and PS256 are verified by node:crypto', async () => {
  const specs = { 'alias/tokens': 'EC_P256', 'alias/rsa': 'RSA_2048', 'alias/k': 'EC_P256K' } as const;
  for (const [aliasName, keySpec] of Object.entries(specs)) await kms.createKey({ keySpec, keyUsage: 'SIGN_VERIFY', aliasName });
  const more = `console.log(await signJwt('alias/rsa', 'RS256', {}));\nconsole.log(await signJwt('alias/rsa', 'PS256', {}));
algorithms.ES256K = algorithms.ES256;\nconsole.log(await signJwt('alias/k', 'ES256K', {}));\n`;
  const [code = ''] = blocksUnder('A JWT', 'js');
  const tokens = runJs(code.replace('kms.close();', `${more}kms.close();`))
    .trim()
    .split('\n');
  expect(tokens).toHaveLength(4);
  for (const token of tokens) {
    const [header = '', claims = '', signature = ''] = token.split('.');
    const { alg, kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as { alg: string; kid: string };
    const keyId = { ES256: 'alias/tokens', ES256K: 'alias/k' }[alg] ?? 'alias/rsa';
    const { publicKey, keyVersionId } = await kms.getPublicKey({ keyId });
    expect(kid).toBe(keyVersionId);
    const key = createPublicKey(publicKey);
    const options = alg.startsWith('ES') ? { key, dsaEncoding: 'ieee-p1363' as const } : { key, ...(alg === 'PS256' ? { padding: 6, saltLength: 32 } : {}) };
    expect(verify('sha256', Buffer.from(`${header}.${claims}`), options, Buffer.from(signature, 'base64url')), alg).toBe(true);
  }
});

test('client/README.md, a certificate', () => {
  const shown = runShell(`(${blocksUnder('A certificate', 'sh')[0]}) 2>&1`);
  for (const words of ['verify OK', 'DNS:shop.example, DNS:www.shop.example', 'O = "Example, Inc."']) expect(shown).toContain(words);
});

test('client/README.md, a service with its own key: the unit may, another may not; the unit decrypts what was encrypted', () => {
  writeFileSync(folder.join('password.txt'), 'hunter2');
  expect(runShell(blocksUnder('A service with its own key', 'sh')[0])).toMatch(/^answer +yes$/m);
  expect(runShell('kms explain advanceDecrypt alias/shop --as uid=4711,unit=blog.service || true')).toMatch(/^answer +no/m);
  const [unit = ''] = blocksUnder('A service with its own key', 'ini');
  const decrypt = /^ExecStartPre=\/bin\/sh -c '(.*)'$/m.exec(unit)?.[1] ?? '';
  runShell(decrypt.replace('/etc/shop/', '').replace('/run/shop/', ''));
  expect([read('db-password').toString(), statSync(folder.join('db-password')).mode & 0o777]).toEqual(['hunter2', 0o600]);
});

test('client/README.md, a CI job: the tests reach an agent of their own', () => {
  writeFileSync(folder.join('package.json'), '{"private": true, "scripts": {"test": "kms encrypt package.json | kms decrypt && echo $KMS_AGENT_SOCK"}}');
  const shown = runShell(blocksUnder('A CI job', 'sh')[0]);
  expect(shown).toContain('"private": true');
  expect(shown).not.toContain(agent.socketPath);
});

test('client/README.md, from keys in files: what the old key encrypted opens; wrapped with OpenSSL; both public keys are published', async () => {
  const [plain, wrapped, both] = blocksUnder('From keys in files', 'sh');
  await agent.end();
  agent = await TestAgent.dev('--no-default-key');
  kms = await agent.client();
  const [key, iv] = [randomBytes(32), randomBytes(12)];
  const cipher = createCipheriv('aes-256-gcm', key, iv);
  writeFileSync(folder.join('raw.key'), key);
  writeFileSync(folder.join('old.iv'), iv);
  writeFileSync(folder.join('old.enc'), Buffer.concat([cipher.update('from before'), cipher.final(), cipher.getAuthTag()]));
  const shown = runShell(plain);
  expect(shown).toContain(Buffer.from('from before').toString('base64'));
  expect(existsSync(folder.join('raw.key'))).toBe(false);
  expect(await kms.describeKey({ keyId: 'alias/default' })).toMatchObject({ origin: 'EXTERNAL', keyState: 'Enabled' });
  await agent.end();
  agent = await TestAgent.dev('--no-default-key');
  kms = await agent.client();
  writeFileSync(folder.join('raw.key'), key);
  runShell(wrapped);
  const sealed = { keyId: 'alias/default', ciphertextBlob: readFileSync(folder.join('old.enc')), iv };
  expect(Buffer.from((await kms.decrypt(sealed)).plaintext).toString()).toBe('from before');
  runShell(`openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout -out release-old.pem 2>/dev/null\n${both}`);
  expect(
    read('release-keys.pem')
      .toString()
      .match(/BEGIN PUBLIC KEY/g),
  ).toHaveLength(2);
});

test('client/README.md: the format of files that it gives is that of the code', async () => {
  const { stanzaAad, stanzaType } = await import('../../client/src/age/header.ts');
  expect(readme).toContain(`-> ${stanzaType}\n`);
  expect(readme).toContain(`\`${Buffer.from(stanzaAad).toString()}\``);
});
