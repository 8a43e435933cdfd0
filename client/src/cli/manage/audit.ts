import { setTimeout as delay } from 'node:timers/promises';
import { type AuditFilters, type AuditOutcome, type AuditRecord, auditOutcomes } from '@kms-agent/protocol';
import type { Command } from 'commander';
import type { AgentClient } from '../../client.ts';
import { UsageError } from '../files.ts';
import { escapeControls } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';
import { idOf } from './shared.ts';

interface TailOptions {
  readonly lines: number;
  readonly follow?: boolean;
  readonly key?: string;
  readonly method?: string;
  readonly uid?: number;
  readonly unit?: string;
  readonly exe?: string;
  readonly outcome?: AuditOutcome;
  readonly json?: boolean;
}

/** Milliseconds between two looks of --follow. */
const followMs = 500;

/** Records that the first look back goes over; each further one goes over four times as many. */
const firstWindow = 1000;

function parseCount(text: string): number {
  const count = Number(text);
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new UsageError(`a number is wanted, not ${text}`);
}

/** A record as a line that a person reads; what it does not show, --json does. */
export function formatRecord({ seq, time, operation, outcome, error, caller, keyId, sourceKeyId, detail }: AuditRecord): string {
  const who = caller ? [`uid ${caller.uid}`, caller.pid === undefined ? '' : `pid ${caller.pid}`, caller.unit ?? '', caller.exe ?? ''] : ['agent'];
  const key = keyId === undefined ? '' : sourceKeyId === undefined ? keyId : `${sourceKeyId} -> ${keyId}`;
  const facts = Object.entries(detail ?? {}).map(([name, value]) => `${name}=${value}`);
  const words = [...who.filter(Boolean), key, ...facts].filter(Boolean).join('  ');
  return `${String(seq).padStart(8)}  ${time}  ${(error === undefined ? outcome : `${outcome} ${error}`).padEnd(7)}  ${operation}  ${escapeControls(words)}\n`;
}

async function chooseFilters(client: AgentClient, { key, method, uid, unit, exe, outcome }: TailOptions): Promise<AuditFilters> {
  return {
    ...(key === undefined ? {} : { keyId: key.startsWith('alias/') ? await idOf(client, key) : key }),
    ...(method === undefined ? {} : { method }),
    ...(uid === undefined ? {} : { uid }),
    ...(unit === undefined ? {} : { unit }),
    ...(exe === undefined ? {} : { exe }),
    ...(outcome === undefined ? {} : { outcome }),
  };
}

/** The last records that pass, and where they end: looks back over more and more until there are enough. */
async function findLast(client: AgentClient, filters: AuditFilters, lines: number): Promise<{ records: AuditRecord[]; endSeq: number }> {
  const { endSeq } = await client.tailAudit({ limit: 1 });
  for (let window = Math.max(firstWindow, lines); ; window *= 4) {
    const afterSeq = Math.max(endSeq - window, 0);
    let found: AuditRecord[] = [];
    for await (const record of client.listAllAuditRecords({ afterSeq, filters, limit: 1000 }))
      if (record.seq <= endSeq) found = [...found, record].slice(-lines);
    if (found.length === lines || afterSeq === 0) return { records: lines === 0 ? [] : found, endSeq };
  }
}

/** Reading the record asks the agent, which is recorded too: nobody wants to follow oneself. */
const isOwnLook = ({ operation, caller }: AuditRecord): boolean => operation === 'tailAudit' && caller?.pid === process.pid;

async function tail(client: AgentClient, options: TailOptions): Promise<void> {
  const print = (record: AuditRecord): void => {
    if (!isOwnLook(record)) process.stdout.write(options.json ? `${JSON.stringify(record)}\n` : formatRecord(record));
  };
  const filters = await chooseFilters(client, options);
  const { records, endSeq } = await findLast(client, filters, options.lines);
  for (const record of records) print(record);
  let afterSeq = endSeq;
  while (options.follow) {
    const { records: more, nextSeq } = await client.tailAudit({ afterSeq, filters, limit: 1000 });
    for (const record of more) print(record);
    afterSeq = nextSeq;
    if (more.length === 0) await delay(followMs);
  }
}

/** What was asked and done. */
export function addAuditCommands(program: Command): void {
  program
    .command('audit')
    .description('what was asked and done')
    .command('tail')
    .description('show the last records; kms-agent audit verify proves that nobody changed them')
    .option('-n, --lines <n>', 'how many', parseCount, 20)
    .option('-F, --follow', 'go on with what comes')
    .option('-k, --key <key>', 'only what was done with this key, by its id or alias')
    .option('--method <name>', 'only this method, or act of the agent, such as rotate')
    .option('--uid <n>', 'only what this user asked for', parseCount)
    .option('--unit <name>', 'only what this unit asked for, such as nginx.service or user-unit:NAME, where a rule asked for the unit')
    .option('--exe <path>', 'only what this program asked for, by its real path, where a rule asked for the program')
    .option('--outcome <outcome>', `only ${auditOutcomes.slice(0, -1).join(', ')} or ${auditOutcomes.at(-1)}`)
    .addHelpText('after', '\nExamples:\n  $ kms audit tail --follow\n  $ kms audit tail -n 100 --key alias/release --outcome denied --json')
    .action((_options: object, command: Command) => withClient(command, (client) => tail(client, optionsOf<TailOptions>(command))));
}
