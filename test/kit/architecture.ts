import { posix } from 'node:path';

/** A source file, by its path in the repository, and its text. */
export type Sources = ReadonlyMap<string, string>;

/** Folders of the daemon, left to right as a request meets them; imports point right. The last four are the ground for all. */
const order = ['cli', 'main', 'front', 'dispatch', 'policy', 'operations', 'keyring', 'providers', 'caller', 'audit', 'vault', 'os'];
const ground = new Set(['caller', 'audit', 'vault', 'os']);

/** Third-party packages and the files or folders that own them. */
const owners: Readonly<Record<string, readonly string[]>> = {
  koffi: ['daemon/src/os/'],
  'node:sqlite': ['daemon/src/vault/database.ts'],
  conf: ['daemon/src/config.ts'],
  winston: ['daemon/src/log.ts'],
  'prom-client': ['daemon/src/metrics/registry.ts'],
  keytar: ['daemon/src/os/keychain-process.ts'],
  pkcs11js: ['daemon/src/providers/pkcs11/'],
  'json-rpc-2.0': ['daemon/src/front/jsonrpc/server.ts', 'client/src/connection.ts'],
  'age-encryption': ['client/src/age/header.ts'],
  zod: ['protocol/src/'],
  commander: ['daemon/src/cli/', 'client/src/cli/'],
};

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
}

function importsOf(text: string): Import[] {
  const statements = text.matchAll(/^(?:import|export)\s+(type\s)?(?:[^'"]*?\sfrom\s+)?['"]([^'"]+)['"]|import\(['"]([^'"]+)['"]\)/gm);
  return [...statements].map(([, type, target, dynamic]) => ({ target: target ?? dynamic ?? '', typeOnly: type !== undefined }));
}

const folderOf = (path: string): string => /^daemon\/src\/([^/.]+)/.exec(path)?.[1] ?? '';

function checkDirection(file: string, target: string, typeOnly: boolean): string | undefined {
  const [from, to] = [folderOf(file), folderOf(posix.join(posix.dirname(file), target))];
  if (to === 'config' || to === 'log' || to === 'metrics')
    return from === 'main' || from === 'cli' || from === to || typeOnly ? undefined : `${file} imports ${to}: settings, log and metrics arrive as arguments`;
  if (from === to || ground.has(to) || typeOnly) return undefined;
  return order.indexOf(to) < order.indexOf(from) ? `${file} imports ${to}/, which stands to its left` : undefined;
}

function checkImport(file: string, { target, typeOnly }: Import): string | undefined {
  if (file.startsWith('client/') && target.startsWith('@kms-agent/daemon')) return `${file} imports the daemon`;
  if (file.startsWith('daemon/') && target.startsWith('@kms-agent/client')) return `${file} imports the client`;
  if (file.startsWith('protocol/') && target.startsWith('@kms-agent/')) return `${file} imports a package of ours`;
  if (target.startsWith('.') && !posix.join(posix.dirname(file), target).startsWith(`${file.split('/')[0]}/src/`)) return `${file} reaches out of its package`;
  if (target.startsWith('.') && file.startsWith('daemon/')) return checkDirection(file, target, typeOnly);
  const allowed = Object.hasOwn(owners, target) ? owners[target] : undefined;
  return allowed && !allowed.some((owner) => file.startsWith(owner)) ? `${file} imports ${target}, which ${allowed.join(' and ')} owns` : undefined;
}

/** Only the dispatcher makes an answer of an error: whoever else builds `{ requestId, error }` goes around the record. */
function checkAnswers(file: string, text: string): string | undefined {
  const makesAnswer = file.startsWith('daemon/') && !file.startsWith('daemon/src/dispatch/') && /randomUUID\(\)[^\n]*error|requestId = /.test(text);
  return makesAnswer ? `${file} makes an answer of an error` : undefined;
}

/** Every breach of the dependency rules, one line each. */
export function findBreaches(sources: Sources): string[] {
  return [...sources].flatMap(([file, text]) =>
    [...importsOf(text).map((found) => checkImport(file, found)), checkAnswers(file, text)].filter((breach) => breach !== undefined),
  );
}
