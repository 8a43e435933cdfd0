import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { AgentError, type KeyPolicy } from '@kms-agent/protocol';
import { executablesOf, resolvePrincipal } from './principal.ts';

/** Programs that run what others wrote: who may be one of them may be anything. */
const interpreters = [
  /^(node|nodejs|deno|bun|java|julia|Rscript|R|env)$/,
  /^(sh|bash|dash|zsh|ksh|mksh|fish)$/,
  /^(python|pypy|perl|ruby|lua|luajit|tclsh|wish|expect|php|php-cgi|php-fpm|awk|[gmn]awk|original-awk|busybox)[-\d.]*$/,
  /^ld(-.+)?\.so(\.\d+)?$/, // ld.so(8) runs the program that it is given
];

/** A path itself, or where its links lead if there is something. */
function resolveLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** What to know of an executable that is allowed; undefined for none of the known interpreters. */
function warnOf(path: string): string | undefined {
  const real = resolveLinks(path);
  if (![path, real].some((one) => interpreters.some((names) => names.test(basename(one))))) return undefined;
  return `exe:${path} is an interpreter${real === path ? '' : ` (${real})`}: every script that it runs is meant. Use unit: where you can.`;
}

/** What the machine can tell of callers. */
export interface WritingContext {
  readonly readsExecutables: boolean;
  readonly hostId: () => string | undefined;
}

/**
 * A policy as it is kept: users and groups by number.
 * @returns it, and what its writer should know.
 * @throws AgentError `ERR_INVALID_PARAMS` with `path`; `ERR_UNSUPPORTED_OPERATION` for what this agent cannot read of its callers.
 */
export function preparePolicy({ statements }: KeyPolicy, { readsExecutables, hostId }: WritingContext): { policy: KeyPolicy; warnings: string[] } {
  const prepared = statements.map((statement, index) => ({
    ...statement,
    principals: statement.principals.map((principal, place) => resolvePrincipal(principal, `/policy/statements/${index}/principals/${place}`)),
  }));
  const executables = prepared.flatMap(({ principals }) => principals.flatMap(executablesOf));
  if (executables.length > 0 && !readsExecutables)
    throw new AgentError('ERR_UNSUPPORTED_OPERATION', {
      hint: 'This agent cannot read which program a caller runs; use unit:, or give it CAP_SYS_PTRACE (systemd/kms-agent.service.d/exe-identity.conf).',
    });
  if (prepared.some(({ bindAad }) => bindAad?.includes('host')) && hostId() === undefined)
    throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'This machine has no /etc/machine-id to bind to.' });
  const warnings = [...new Set(executables)].map(warnOf).filter((warning) => warning !== undefined);
  return { policy: { statements: prepared }, warnings };
}
