import type { ExplainedCaller, ExplainResult, KeyPolicy } from '@kms-agent/protocol';
import type { Command } from 'commander';
import { readInput, UsageError } from '../files.ts';
import { printJson, printPage } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { idOf } from './shared.ts';

function readPolicy(file: string | undefined): KeyPolicy {
  try {
    return JSON.parse(Buffer.from(readInput(file)).toString()) as KeyPolicy; // the client checks it against the schema
  } catch (cause) {
    if (cause instanceof SyntaxError) throw new UsageError('the policy is not JSON', { cause });
    throw cause;
  }
}

/** A policy as it is kept, without what belongs to the answer: the file that `kms policy set` takes. */
const policyOf = ({ statements }: KeyPolicy): KeyPolicy => ({ statements });

function addPolicy(program: Command): void {
  const policy = program.command('policy').description('who may do what with a key');
  policy
    .command('get <key>')
    .description('print the policy of a key: JSON that kms policy set takes')
    .action(async (keyId: string, _options: object, command: Command) =>
      printJson(policyOf(await withClient(command, (client) => client.getKeyPolicy({ keyId })))),
    );
  policy
    .command('set <key> [file]')
    .description('replace the policy of a key by that of a file or standard input')
    .addHelpText(
      'after',
      '\nExample:\n  $ echo \'{"statements":[{"effect":"Allow","principals":["unit:shop.service"],"actions":["use"]}]}\' | kms policy set alias/shop',
    )
    .action(async (key: string, file: string | undefined, _options: object, command: Command) => {
      const policyToSet = readPolicy(file);
      const kept = await withClient(command, async (client) => client.setKeyPolicy({ keyId: await idOf(client, key), policy: policyToSet }));
      for (const warning of kept.warnings ?? []) process.stderr.write(`kms: warning: ${warning}\n`);
      printJson(optionsOf<object>(command).json ? kept : policyOf(kept));
    });
}

const numberOf = (name: string, text: string): number => {
  const number = Number(text);
  if (text !== '' && Number.isInteger(number) && number >= 0) return number;
  throw new UsageError(`${name} in --as takes a number, not ${text || 'nothing'}`);
};

/** Reads `uid=33,groups=33+44,unit=shop.service,exe=/usr/bin/shop`. */
export function parseCaller(text: string): ExplainedCaller {
  const caller: ExplainedCaller = {};
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    const [name, value] = [part.slice(0, Math.max(at, 0)), part.slice(at + 1)];
    if (name === 'uid') caller.uid = numberOf(name, value);
    else if (name === 'groups') caller.groups = value.split('+').map((gid) => numberOf(name, gid));
    else if ((name === 'unit' || name === 'exe') && value !== '') caller[name] = value;
    else throw new UsageError(`--as takes uid=N, groups=N+N, unit=NAME and exe=PATH, joined by commas, not ${part}`);
  }
  return caller;
}

/** The answer in a sentence; 1 is the exit status of a call that would not succeed. */
function printVerdict({ allowed, wouldSucceed, blockedBy, ...because }: ExplainResult): void {
  const words = wouldSucceed ? 'yes' : allowed ? `no: allowed, but answered ${blockedBy}` : `no: ${blockedBy}`;
  printPage({ answer: words, ...because });
}

function addExplain(program: Command): void {
  program
    .command('explain <method> [key]')
    .description('say whether a call would succeed, and what decides; changes nothing')
    .option('--as <caller>', 'of somebody else: uid=N,groups=N+N,unit=NAME,exe=PATH, any of them', parseCaller)
    .option('--alias <name>', 'of updateAlias and deleteAlias: the alias that would be moved or deleted')
    .addHelpText(
      'after',
      '\nExamples:\n  $ kms explain sign alias/release\n  $ kms explain advanceDecrypt alias/shop --as uid=33,unit=shop.service\n\nWithout unit= it is a caller outside of every unit; without exe= its program is not known, which every Deny by exe: matches.',
    )
    .action(async (method: string, keyId: string | undefined, _options: object, command: Command) => {
      const { as: caller, alias: aliasName, json } = optionsOf<{ as?: ExplainedCaller; alias?: string }>(command);
      const verdict = await withClient(command, (client) =>
        client.explain({ method, ...(keyId === undefined ? {} : { keyId }), ...(aliasName === undefined ? {} : { aliasName }), ...(caller ? { caller } : {}) }),
      );
      if (json) printJson(verdict);
      else printVerdict(verdict);
      process.exitCode = verdict.wouldSucceed ? 0 : 1;
    });
}

/** Who may do what, and why. */
export function addPolicyCommands(program: Command): void {
  addPolicy(program);
  addExplain(program);
}
