import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { packageFolder } from '../../os/own-package.ts';

/** A package as it lies on the disk, and its folder in a tree that is to be made. */
export interface PlacedPackage {
  readonly source: string;
  /** Relative to the tree. */
  readonly target: string;
}

/** A file of the plan. */
export interface PlannedFile {
  readonly source: string;
  /** Relative to the tree. */
  readonly target: string;
}

interface Manifest {
  readonly name: string;
  readonly files?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Folder of the daemon's own package. */
export const daemonFolder = realpathSync(packageFolder);

const readManifest = (folder: string): Manifest => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest; // npm has read it before

/** Finds a package as Node does from a folder: in node_modules there and above. */
export function findPackage(name: string, from: string): string | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return realpathSync(candidate);
    if (dirname(folder) === folder) return undefined;
  }
}

/** Places packages so that each finds the very packages that it finds now: at the top, or below its dependent where another one is in the way. */
class Placement {
  readonly #sources = new Map<string, string>();

  get packages(): PlacedPackage[] {
    return [...this.#sources].map(([target, source]) => ({ source, target }));
  }

  place(source: string, target: string): void {
    this.#sources.set(target, source);
    const { name, dependencies = {}, optionalDependencies = {} } = readManifest(source);
    for (const dependency of Object.keys({ ...dependencies, ...optionalDependencies })) {
      const found = findPackage(dependency, source);
      if (found) this.#placeFor(target, dependency, found);
      else if (!Object.hasOwn(optionalDependencies, dependency)) throw new Error(`${name} needs ${dependency}, which is not installed`);
    }
  }

  #placeFor(dependent: string, name: string, source: string): void {
    const seen = this.#resolve(dependent, name);
    if (seen === source) return;
    this.place(source, join(seen === undefined ? '' : dependent, 'node_modules', name));
  }

  #resolve(from: string, name: string): string | undefined {
    for (let folder = from; ; folder = folder === '.' ? '' : dirname(folder)) {
      const source = this.#sources.get(join(folder, 'node_modules', name));
      if (source !== undefined || folder === '') return source;
    }
  }
}

/** The daemon, the client that is installed beside it, if any, and all that they need to run. @throws Error that names what is missing. */
export function planPackages(): PlacedPackage[] {
  const placement = new Placement();
  placement.place(daemonFolder, join('node_modules', '@kms-agent', 'daemon'));
  const client = findPackage('@kms-agent/client', daemonFolder);
  if (client) placement.place(client, join('node_modules', '@kms-agent', 'client'));
  return placement.packages;
}

function* walk(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== 'node_modules') yield* walk(path);
    } else if (entry.isFile()) yield path;
    else throw new Error(`${path} is neither a file nor a folder; a package holds nothing else`);
  }
}

/** What a package ships: of ours only what it publishes, because in a checkout there is more. */
function isShipped(path: string, { name, files }: Manifest): boolean {
  if (!name.startsWith('@kms-agent/') || !files) return true;
  if (path.endsWith('.tsbuildinfo')) return false;
  return path === 'package.json' || files.some((entry) => path === entry || path.startsWith(`${entry}/`));
}

/** Every file of the packages. @throws Error for what is neither a file nor a folder. */
export function listFiles(packages: readonly PlacedPackage[]): PlannedFile[] {
  return packages.flatMap(({ source, target }) => {
    const manifest = readManifest(source);
    const shipped = [...walk(source)].filter((path) => isShipped(relative(source, path), manifest));
    return shipped.map((path) => ({ source: path, target: join(target, relative(source, path)) }));
  });
}
