import { execFileSync, spawnSync } from 'node:child_process';
import { globSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { repository, TempFolder } from '../kit/agent.ts';
import { findBreaches } from '../kit/architecture.ts';

const files = globSync('{protocol,client,daemon}/src/**/*.ts', { cwd: repository });

test('the sources keep the dependency rules', () => {
  expect(files.length).toBeGreaterThan(50);
  expect(findBreaches(new Map(files.map((file) => [file, readFileSync(join(repository, file), 'utf8')])))).toEqual([]);
});

test.each([
  ['client/src/x.ts', "import { startAgent } from '@kms-agent/daemon';", 'imports the daemon'],
  ['daemon/src/x.ts', "import { connect } from '@kms-agent/client';", 'imports the client'],
  ['client/src/x.ts', "import { Vault } from '../../daemon/src/vault/vault.ts';", 'reaches out of its package'],
  ['daemon/src/keyring/x.ts', "import { Listener } from '../front/listener.ts';", 'imports front/'],
  ['daemon/src/vault/x.ts', "import { Keyring } from '../keyring/keyring.ts';", 'imports keyring/'],
  ['daemon/src/operations/x.ts', "import { makeLog } from '../log.ts';", 'settings, log and metrics arrive as arguments'],
  ['daemon/src/keyring/x.ts', "import koffi from 'koffi';", 'imports koffi'],
  ['daemon/src/keyring/x.ts', "import { DatabaseSync } from 'node:sqlite';", 'imports node:sqlite'],
  ['daemon/src/front/x.ts', "const { JSONRPCServer } = await import('json-rpc-2.0');", 'imports json-rpc-2.0'],
  ['client/src/age/x.ts', "import { Encrypter } from 'age-encryption';", 'imports age-encryption'],
  ['daemon/src/front/x.ts', 'const requestId = randomUUID();', 'makes an answer of an error'],
])('a planted breach in %s is found: %s', (file, text, words) => {
  expect(findBreaches(new Map([[file, text]])).join()).toContain(words);
});

test('a method without a handler does not compile', () => {
  using folder = new TempFolder();
  const text = `import type { Handlers } from '${repository}daemon/src/operations/index.ts';\ndeclare const all: Omit<Handlers, 'sign'>;\nexport const handlers: Handlers = all;\n`;
  writeFileSync(folder.join('probe.ts'), text);
  const options = [
    '--ignoreConfig',
    '--noEmit',
    '--strict',
    '--skipLibCheck',
    '--allowImportingTsExtensions',
    '--module',
    'nodenext',
    '--target',
    'es2024',
    '--types',
    'node',
    '--typeRoots',
    join(repository, 'node_modules/@types'),
  ];
  const { status, stdout } = spawnSync(process.execPath, [join(repository, 'node_modules/typescript/bin/tsc'), ...options, folder.join('probe.ts')], {
    encoding: 'utf8',
  });
  expect(status).not.toBe(0);
  expect(stdout).toContain("Property 'sign' is missing");
});

test('the top level holds what the design names and what tools require', () => {
  const tracked = execFileSync('git', ['ls-files'], { cwd: repository }).toString().trim().split('\n');
  const top = new Set(tracked.map((path) => path.split('/')[0]));
  const allowed = [
    'package.json',
    'tsconfig.json',
    'daemon',
    'client',
    'protocol',
    'test',
    'systemd',
    'README.md',
    'package-lock.json',
    'biome.json',
    '.oxlintrc.json',
    '.gitignore',
    '.ci',
    'LICENSE',
    'CHANGELOG.md',
  ];
  expect([...top].filter((name) => !allowed.includes(name ?? ''))).toEqual([]);
  expect(readdirSync(repository)).toContain('README.md');
});
