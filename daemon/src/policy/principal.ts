import { isAbsolute } from 'node:path';
import { AgentError, type Principal } from '@kms-agent/protocol';
import type { Caller, FileId, Unit } from '../caller/identity.ts';
import { identifyFile } from '../caller/process.ts';
import { findGroupId, findUserId } from '../os/users.ts';

/** Whether a principal is the caller; `unknown` where what it asks for cannot be read. */
export type Match = 'yes' | 'no' | 'unknown';

/** Says whether a caller is meant. */
export type Test = (caller: Caller) => Match;

/** A principal that is ready to be asked. */
export interface CompiledPrincipal {
  readonly test: Test;
  /** Whether it must look into /proc. */
  readonly readsProcess: boolean;
}

/** What stands before the colon. */
const kinds = ['user', 'uid', 'group', 'gid', 'unit', 'user-unit', 'exe'] as const;
type Kind = (typeof kinds)[number];
const isKind = (text: string): text is Kind => (kinds as readonly string[]).includes(text);

const yesIf = (condition: boolean): Match => (condition ? 'yes' : 'no');

const wrong = (path: string, reason: string): AgentError => new AgentError('ERR_INVALID_PARAMS', { path, reason });

function parseId(value: string, path: string): number {
  if (/^(0|[1-9]\d{0,9})$/.test(value) && Number(value) < 2 ** 32 - 1) return Number(value);
  throw wrong(path, 'must be a number from 0 to 4294967294');
}

/** The parts of a principal, each a kind and its value. @throws AgentError `ERR_INVALID_PARAMS` with `path`. */
function partsOf(principal: Principal, path: string): [Kind, string][] {
  const pairs = typeof principal === 'string' ? [splitOnce(principal)] : Object.entries(principal);
  if (pairs.length === 0) throw wrong(path, 'must name somebody');
  return pairs.map(([kind, value]) => {
    if (!isKind(kind)) throw wrong(path, `must be *, or begin with ${kinds.map((known) => `${known}:`).join(' ')}`);
    if (value === '') throw wrong(path, `names no ${kind}`);
    return [kind, value];
  });
}

function splitOnce(text: string): [string, string] {
  const colon = text.indexOf(':');
  return colon === -1 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)];
}

/** Users and groups as numbers: a name that means somebody else tomorrow must not take the rights along. */
function resolvePart([kind, value]: [Kind, string], path: string): [Kind, string] {
  if (kind !== 'user' && kind !== 'group') return [kind, kind === 'uid' || kind === 'gid' ? String(parseId(value, path)) : value];
  const id = kind === 'user' ? findUserId(value) : findGroupId(value);
  if (id === undefined) throw wrong(path, `names no local ${kind}; use ${kind === 'user' ? 'uid' : 'gid'}: for one of a directory service`);
  return [kind === 'user' ? 'uid' : 'gid', String(id)];
}

/** A principal with its users and groups as numbers. @throws AgentError `ERR_INVALID_PARAMS` with `path`. */
export function resolvePrincipal(principal: Principal, path: string): Principal {
  if (principal === '*') return principal;
  const parts = partsOf(principal, path).map((part) => resolvePart(part, path));
  checkValues(parts, path);
  if (typeof principal === 'string') return parts.map(([kind, value]) => `${kind}:${value}`).join('');
  if (new Set(parts.map(([kind]) => kind)).size < parts.length) throw wrong(path, 'names a user or a group twice');
  return Object.fromEntries(parts);
}

function checkValues(parts: readonly [Kind, string][], path: string): void {
  for (const [kind, value] of parts) {
    if (kind === 'exe' && !isAbsolute(value)) throw wrong(path, 'must be an absolute path');
    if ((kind === 'unit' || kind === 'user-unit') && !/^[A-Za-z0-9:_.\\@-]+\.(service|scope|socket|mount|swap)$/.test(value))
      throw wrong(path, 'must be the full name of a unit, such as nginx.service');
  }
}

const unitTest =
  (scope: Unit['scope'], name: string): Test =>
  ({ process }) => {
    const unit = process.unit();
    return unit === 'unknown' ? 'unknown' : yesIf(unit !== undefined && unit.scope === scope && unit.name === name);
  };

/** The file that a rule names, looked at anew: it may have been replaced. Undefined when it is not there. */
function findFile(path: string): FileId | undefined {
  try {
    return identifyFile(path);
  } catch {
    return undefined; // ENOENT, EACCES: then nothing is known, and nobody is let in by it
  }
}

const executableTest =
  (path: string): Test =>
  ({ process }) => {
    const running = process.executable();
    const named = findFile(path);
    if (running === 'unknown' || named === undefined) return 'unknown';
    return yesIf(running.device === named.device && running.inode === named.inode);
  };

const tests: Readonly<Record<Exclude<Kind, 'user' | 'group'>, (value: string) => Test>> = {
  uid: (value) => (caller) => yesIf(caller.uid === Number(value)),
  gid: (value) => (caller) => yesIf(caller.gid === Number(value) || caller.groups.includes(Number(value))),
  unit: (value) => unitTest('system', value),
  'user-unit': (value) => unitTest('user', value),
  exe: (value) => executableTest(value),
};

/** All must hold; one that does not decides, whatever is not known of the others. */
function testAll(caller: Caller, all: readonly Test[]): Match {
  let answer: Match = 'yes';
  for (const test of all) {
    const match = test(caller);
    if (match === 'no') return 'no';
    if (match === 'unknown') answer = 'unknown';
  }
  return answer;
}

/** Makes a resolved principal ready. What costs nothing is asked first. @throws AgentError `ERR_INVALID_PARAMS` with `path`. */
export function compilePrincipal(principal: Principal, path: string): CompiledPrincipal {
  if (principal === '*') return { test: () => 'yes', readsProcess: false };
  const parts = partsOf(principal, path).map((part) => resolvePart(part, path));
  const rank = ([kind]: [Kind, string]): number => (kind === 'uid' || kind === 'gid' ? 0 : 1);
  const sorted = parts.toSorted((a, b) => rank(a) - rank(b));
  const all = sorted.map(([kind, value]) => tests[kind as keyof typeof tests](value)); // resolvePart leaves no user and no group
  return { test: all.length === 1 && all[0] ? all[0] : (caller) => testAll(caller, all), readsProcess: sorted.some((part) => rank(part) === 1) };
}

/** Paths of executables that a principal asks for. */
export function executablesOf(principal: Principal): string[] {
  if (principal === '*') return [];
  return partsOf(principal, '').flatMap(([kind, value]) => (kind === 'exe' ? [value] : []));
}
