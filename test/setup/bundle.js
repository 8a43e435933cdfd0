// Puts each program and what it imports into few files: half of the time to start was finding, opening and parsing some 450 of them.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const compiled = (folder, name) => join(root, folder, 'dist', 'cli', `${name}.js`);

const programs = {
  daemon: { main: compiled('daemon', 'main'), 'early-signals': compiled('daemon', 'early-signals') },
  client: { main: compiled('client', 'main') },
};

/** Compiled for one machine: they stay where npm has put them. */
const native = ['koffi', 'keytar', 'pkcs11js'];

function packageOf(file) {
  let folder = dirname(file);
  while (!existsSync(join(folder, 'package.json')) || !JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).version) folder = dirname(folder);
  return folder;
}

function describePackage(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const texts = readdirSync(folder).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
  return [`${name} ${version} (${license})`, ...texts.map((file) => readFileSync(join(folder, file), 'utf8').trim())].join('\n\n');
}

/** The licences of others' code in a bundle ask to go with it. */
const notices = {
  name: 'notices',
  file: 'THIRD-PARTY-NOTICES.txt',
  generateBundle(_options, bundle) {
    const files = Object.values(bundle).flatMap(({ moduleIds = [] }) => moduleIds.filter((id) => id.includes('/node_modules/')));
    const folders = [...new Set([...files, join(root, 'node_modules', 'rolldown', 'package.json')].map(packageOf))].sort((a, b) => (a < b ? -1 : 1));
    this.emitFile({ type: 'asset', fileName: notices.file, source: `${folders.map(describePackage).join(`\n\n${'-'.repeat(72)}\n\n`)}\n` });
  },
};

/** When the newest of what bundles are made of was written. */
function newestInput() {
  const isBundled = (entry) => entry.parentPath.split(sep).includes('bundle');
  const compiledFiles = ['protocol', 'client', 'daemon'].flatMap((folder) =>
    readdirSync(join(root, folder, 'dist'), { withFileTypes: true, recursive: true }).filter((entry) => entry.name.endsWith('.js') && !isBundled(entry)),
  );
  const files = [...compiledFiles.map(({ parentPath, name }) => join(parentPath, name)), join(root, 'package-lock.json'), fileURLToPath(import.meta.url)];
  return Math.max(...files.map((file) => statSync(file).mtimeMs));
}

/** Bundles what has changed since it was bundled: a running agent may yet load a part of what is there. Also what vitest does before the first test. */
export default async function bundlePrograms() {
  const newest = newestInput();
  for (const [folder, input] of Object.entries(programs)) {
    const dir = join(root, folder, 'dist', 'bundle');
    const made = statSync(join(dir, notices.file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (made > newest && made <= Date.now()) continue; // else the clock was set back since
    const bundle = await rolldown({ input, platform: 'node', external: native, plugins: [notices], logLevel: 'warn' });
    // A name with a hash: an agent that runs finds its own parts or none, never those of the next one.
    await bundle.write({ dir, format: 'esm', cleanDir: true, entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' });
    await bundle.close();
    console.error(`[setup] bundled ${relative(root, dir)}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundlePrograms();
