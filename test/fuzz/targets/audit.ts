import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isAgentError } from '@kms-agent/protocol';
import fc from 'fast-check';
import { Audit, type AuditOptions } from '../../../daemon/src/audit/audit.ts';
import type { AuditState } from '../../../daemon/src/audit/chain.ts';
import { listFiles } from '../../../daemon/src/audit/files.ts';
import { type AuditEntry, type AuditRecord, decodeRecord, encodeRecord, hashLine } from '../../../daemon/src/audit/record.ts';
import { firstState, resume } from '../../../daemon/src/audit/resume.ts';
import { verifyAudit } from '../../../daemon/src/audit/verify.ts';
import { TempFolder } from '../../kit/agent.ts';
import { type ByteChange, byteChanges, changeBytes, changeJson, changeText, type JsonChange, jsonChanges } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const records = 60;

/** What somebody does to the files. */
type Attack =
  | { readonly what: 'bytes'; readonly file: number; readonly changes: readonly ByteChange[] }
  | { readonly what: 'text'; readonly line: number; readonly changes: readonly ByteChange[] }
  | { readonly what: 'json'; readonly line: number; readonly changes: readonly JsonChange[] }
  | { readonly what: 'drop' | 'double' | 'swap' | 'cut'; readonly line: number; readonly other: number }
  | { readonly what: 'field'; readonly line: number; readonly name: string; readonly value: unknown; readonly chainsOn: boolean }
  | { readonly what: 'remove' | 'empty' | 'exchange'; readonly file: number };

const names = ['seq', 'number', 'vaultRevision', 'previous', 'mac', 'time', 'operation', 'outcome', 'requestId', 'keyId', 'caller', 'detail'];
const awkward = fc.constantFrom<unknown>(
  -1,
  0,
  1,
  1.5,
  2 ** 53 - 1,
  1e300,
  '',
  'abc',
  '-1',
  '99999999999999999999',
  '0'.repeat(64),
  'begun',
  null,
  true,
  [],
  {},
  { uid: 'x' },
);

const attack = fc.oneof(
  fc.record({ what: fc.constant('bytes'), file: fc.nat(20), changes: byteChanges }),
  fc.record({ what: fc.constant('text'), line: fc.nat(200), changes: byteChanges }),
  fc.record({ what: fc.constant('json'), line: fc.nat(200), changes: jsonChanges }),
  fc.record({ what: fc.constantFrom('drop', 'double', 'swap', 'cut'), line: fc.nat(200), other: fc.nat(200) }),
  fc.record({ what: fc.constant('field'), line: fc.nat(200), name: fc.constantFrom(...names), value: awkward, chainsOn: fc.boolean() }),
  fc.record({ what: fc.constantFrom('remove', 'empty', 'exchange'), file: fc.nat(20) }),
) as fc.Arbitrary<Attack>; // the record does not keep the names
const attacks = fc.array(attack, { minLength: 1, maxLength: 3 });

const linesOf = (folder: string): string[] => listFiles(folder).flatMap((file) => readFileSync(file, 'latin1').split('\n').slice(0, -1));

/** A line of one of the files, and how to put another text in its place. */
function findLine(folder: string, wanted: number, isMeant: (line: string) => boolean): { lines: string[]; at: number; write: () => void } | undefined {
  const places = listFiles(folder).flatMap((file) => {
    const lines = readFileSync(file, 'latin1').split('\n');
    const write = (): void => writeFileSync(file, lines.join('\n'), 'latin1');
    return lines.slice(0, -1).flatMap((line, at) => (isMeant(line) ? [{ lines, at, write }] : []));
  });
  return places[wanted % Math.max(places.length, 1)];
}

const rewrite = (line: string, fields: object): string => encodeRecord({ ...(JSON.parse(line) as AuditRecord), ...fields });
const ofCheckpoints = new Set(['number', 'mac', 'vaultRevision']);

function attackLine(folder: string, asked: Extract<Attack, { line: number }>): void {
  const isMeant = (line: string): boolean => asked.what !== 'field' || !ofCheckpoints.has(asked.name) || line.includes('"checkpoint"');
  const found = findLine(folder, asked.line, isMeant);
  if (!found) return;
  const { lines, at, write } = found;
  const line = lines[at] ?? '';
  if (asked.what === 'text') lines[at] = Buffer.from(changeText(line, asked.changes)).toString('latin1');
  if (asked.what === 'json' && decodeRecord(line)) lines[at] = JSON.stringify(changeJson(JSON.parse(line), asked.changes)) ?? '';
  if (asked.what === 'field' && decodeRecord(line)) lines[at] = rewrite(line, { [asked.name]: asked.value });
  if (asked.what === 'drop') lines.splice(at, 1);
  if (asked.what === 'double') lines.splice(at, 0, line);
  if (asked.what === 'cut') lines.splice(at);
  if (asked.what === 'swap') {
    const other = asked.other % Math.max(lines.length - 1, 1);
    [lines[at], lines[other]] = [lines[other] ?? '', line];
  }
  write();
  if (asked.what === 'field' && asked.chainsOn) chainOn(folder);
}

/** Puts the right hash of the line before into every line: who has no key can do that. */
function chainOn(folder: string): void {
  let previous: string | undefined;
  for (const file of listFiles(folder)) {
    const lines = readFileSync(file, 'latin1').split('\n').slice(0, -1);
    const chained = lines.map((line) => {
      const next = decodeRecord(line) && previous ? rewrite(line, { previous }) : line;
      previous = hashLine(next);
      return next;
    });
    writeFileSync(file, chained.map((line) => `${line}\n`).join(''), 'latin1');
  }
}

function attackFolder(folder: string, asked: Attack): void {
  if ('line' in asked) attackLine(folder, asked);
  else attackFiles(folder, asked);
}

function attackFiles(folder: string, asked: Extract<Attack, { file: number }>): void {
  const files = listFiles(folder);
  const file = files[asked.file % Math.max(files.length, 1)];
  const next = files[(asked.file + 1) % Math.max(files.length, 1)];
  if (!file || !next) return;
  if (asked.what === 'bytes') writeFileSync(file, changeBytes(readFileSync(file), asked.changes));
  if (asked.what === 'remove') rmSync(file);
  if (asked.what === 'empty') writeFileSync(file, '');
  if (asked.what !== 'exchange') return;
  const [one, two] = [readFileSync(file), readFileSync(next)];
  writeFileSync(file, two);
  writeFileSync(next, one);
}

const optionsFor = (folder: string): AuditOptions => ({
  folder,
  maxFileBytes: 4096,
  maxTotalBytes: 10_000_000,
  minAgeMs: 0,
  reserveBytes: 4096,
  sync: false,
  checkpointRecords: 7,
  checkpointMs: 60_000,
  now: () => 1_900_000_000_000,
  sinceBoot: () => 0,
  onChange: () => undefined,
});

/** Entries of every form. */
function entryOf(index: number): AuditEntry {
  const request = {
    requestId: `018f3c5e-1b2a-7c3d-8e4f-${String(index >> 1).padStart(12, '0')}`,
    keyId: 'alias/x',
    caller: { uid: 0, gid: 0, pid: index, exe: '/opt/\ufffd/é' },
  };
  if (index % 5 === 0) return { operation: 'rotate', outcome: 'ok', detail: { index } };
  return index % 2 === 1
    ? { operation: 'createKey', outcome: 'begun', vaultRevision: String(index), ...request }
    : { operation: 'createKey', outcome: 'done', ...request };
}

/** A record of its own, keyed to its end. @returns every state that a vault would have kept. */
async function makeRecord(folder: string, startKey: Buffer): Promise<AuditState[]> {
  const states: AuditState[] = [firstState(startKey)];
  const audit = new Audit(optionsFor(folder));
  const keep = (state: AuditState): boolean => states.push({ ...state, key: Buffer.from(state.key) }) > 0;
  audit.attach(firstState(startKey), { revision: () => BigInt(states.length), isClockBelievable: () => true, keep });
  for (let index = 0; index < records; index += 1) await audit.record(entryOf(index));
  audit.close();
  return states;
}

/** Whether files say the same up to the last checkpoint: what comes after it nobody has keyed. */
const isUnharmed = (before: readonly string[], now: readonly string[]): boolean => before.every((line, index) => now[index] === line);

/** What an agent does with such files when it starts and its vault is opened. */
async function goOn(folder: string, state: AuditState): Promise<void> {
  const audit = new Audit(optionsFor(folder));
  try {
    const { key, number } = await resume(folder, state, audit.end);
    audit.attach({ key, number, droppedSeq: state.droppedSeq }, { revision: () => 1n, isClockBelievable: () => true, keep: () => true });
    await audit.record({ operation: 'start', outcome: 'ok' });
    must(audit.health === 'ok', 'the record cannot be written any more');
  } finally {
    audit.close();
  }
}

/** The files of the audit record, in the hands of somebody else. */
export const audit: Target = {
  name: 'audit',
  promise: 'every change to keyed records is found, nothing fails on one, and the agent starts and records all the same',
  runs: 250,
  open: async (stack) => {
    const folder = stack.use(new TempFolder());
    const [good, changed] = [folder.join('good'), folder.join('changed')];
    const startKey = randomBytes(32);
    const states = await makeRecord(good, startKey);
    const [before, remembered] = [linesOf(good), states.at(-1)];
    if (!remembered) throw new Error('the record has no checkpoint');
    must((await verifyAudit(good, { startKey, remembered })).ok, 'a good record does not verify');
    for (const line of before) must(encodeRecord(decodeRecord(line) ?? ({} as never)) === line, `a good record is read as another: ${line}`);
    return prove(fc.record({ asked: attacks, state: fc.nat(63), vaultForgets: fc.boolean() }), async ({ asked, state, vaultForgets }) => {
      rmSync(changed, { recursive: true, force: true });
      mkdirSync(changed, { mode: 0o700 });
      for (const name of readdirSync(good)) cpSync(join(good, name), join(changed, name));
      for (const one of asked) attackFolder(changed, one);
      const { ok } = await verifyAudit(changed, { startKey, ...(vaultForgets ? {} : { remembered }) });
      must(!ok || vaultForgets || isUnharmed(before, linesOf(changed)), 'a change was not found');
      try {
        await goOn(changed, states[state % states.length] ?? remembered);
      } catch (error) {
        must(isAgentError(error, 'ERR_STATE_CONFLICT', 'ERR_AUDIT_UNAVAILABLE'), `the agent fails on it with ${String(error)}`);
      }
    });
  },
};
