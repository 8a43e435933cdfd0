import { readFileSync } from 'node:fs';
import { findPackageJSON } from 'node:module';
import { dirname, join } from 'node:path';

const manifestPath = findPackageJSON(import.meta.url);
if (manifestPath === undefined) throw new TypeError('kms-agent runs outside of its package');

/** Folder of this package, whether this is its source, compiled, or bundled. */
export const packageFolder = dirname(manifestPath);

export const { version } = JSON.parse(readFileSync(manifestPath, 'utf8')) as { version: string }; // our own package

const isSource = import.meta.url.endsWith('.ts');

/** A program of ours that runs in a process of its own. @param module - its path from the root of the sources, without its ending. */
export const programOf = (module: string): string => join(packageFolder, isSource ? 'src' : 'dist', `${module}${isSource ? '.ts' : '.js'}`);
