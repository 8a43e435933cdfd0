// Prepares a checkout: packages, build, and the Debian packages that the tour and the tests use. Plain JavaScript for Node 18 and up.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const stamp = join(root, 'node_modules', '.kms-agent-setup');

/** Debian packages that tests use, with a program or file of each. */
const debianPackages = {
  age: '/usr/bin/age',
  openssl: '/usr/bin/openssl',
  strace: '/usr/bin/strace',
  'util-linux': '/usr/bin/setpriv',
  softhsm2: '/usr/lib/softhsm/libsofthsm2.so',
  opensc: '/usr/bin/pkcs11-tool',
  gcc: '/usr/bin/gcc',
  'groff-base': '/usr/bin/groff',
  'g++': '/usr/bin/g++',
  'libc6-dev': '/usr/include/stdlib.h',
  make: '/usr/bin/make',
  zsh: '/usr/bin/zsh',
  fish: '/usr/bin/fish',
  python3: '/usr/bin/python3',
  'pkg-config': '/usr/bin/pkg-config',
  'libsecret-1-dev': '/usr/include/libsecret-1/libsecret/secret.h',
  'gnome-keyring': '/usr/bin/gnome-keyring-daemon',
  dbus: '/usr/bin/dbus-run-session',
  'python3-dbus': '/usr/lib/python3/dist-packages/dbus/__init__.py',
  'python3-gi': '/usr/lib/python3/dist-packages/gi/__init__.py',
  systemd: '/usr/lib/systemd/systemd',
  'systemd-container': '/usr/bin/systemd-nspawn',
  swtpm: '/usr/bin/swtpm',
  'tpm2-tools': '/usr/bin/tpm2_flushcontext',
  'libtss2-tcti-swtpm0': `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/libtss2-tcti-swtpm.so.0`,
};

const say = (text) => console.error(`[setup] ${text}`);

function run(program, args, options = {}) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], ...options });
  if (status === 0) return;
  say(`${program} ${args.join(' ')} failed${error ? `: ${error.message}` : ` with status ${status}`}`);
  process.exit(1);
}

const missing = Object.entries(debianPackages)
  .filter(([, path]) => !existsSync(path))
  .map(([name]) => name);
const command = ['apt-get', 'install', '-y', '--no-install-recommends', ...missing];
if (missing.length > 0 && (process.getuid() === 0 || process.env.CI === 'true')) {
  say(`installing Debian packages: ${missing.join(' ')}`);
  const sudo = process.getuid() === 0 ? [] : ['sudo'];
  for (const args of [['apt-get', 'update', '-qq'], command]) run([...sudo, ...args][0], [...sudo, ...args].slice(1));
} else if (missing.length > 0) say(`what needs them will be skipped; to have it too: sudo ${command.join(' ')}`);

// pkcs11js and keytar are compiled when they are installed: where what that needs came later, packages are installed again.
const compiles = ['g++', 'make', 'python3', 'pkg-config', 'libsecret-1-dev'].every((name) => existsSync(debianPackages[name]));
const wanted = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .update(String(compiles))
  .digest('hex');

// An unconditional npm ci would delete node_modules under a running agent.
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
  say('installing packages: npm ci');
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, wanted);
}

const node = join(root, 'node_modules', '.bin', 'node');
const runtime = existsSync(node) ? node : process.execPath;
const version = execFileSync(runtime, ['--version'], { encoding: 'utf8' }).trim();
const [major, minor] = version.slice(1).split('.').map(Number);
if (major < 24 || (major === 24 && minor < 15)) {
  say(`needs Node 24.15 or newer. No packaged Node was found for ${process.platform} ${process.arch}, and this one is ${version}.`);
  process.exit(1);
}
say(`building with Node ${version}: tsc -b, and a bundle of each program`);
run(runtime, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-b']);
run(runtime, [join(root, 'test', 'setup', 'bundle.js')]);
