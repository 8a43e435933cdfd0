import { fstatSync } from 'node:fs';
import { Writable } from 'node:stream';
import winston from 'winston';
import type { Settings } from './config.ts';

/** The only fields that reach the log: what is not named here cannot leak. */
const allowedFields = [
  'requestId',
  'method',
  'code',
  'uid',
  'pid',
  'path',
  'state',
  'keys',
  'connections',
  'signal',
  'act',
  'keyId',
  'keyVersionId',
  'token',
  'detail',
  'settings',
] as const;

/** Fields of a log line. */
export type LogFields = Partial<Record<(typeof allowedFields)[number], string | number>>;

/** Diagnostics for the operator; never the audit record. */
export interface Log {
  /** error, warn, info or debug. */
  setLevel(level: string): void;
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
}

function formatFields(info: Record<string, unknown>): string {
  const known = allowedFields.filter((field) => info[field] !== undefined);
  return known.map((field) => ` ${field}=${JSON.stringify(info[field])}`).join('');
}

/** Priorities of syslog(3), which the journal takes from the beginning of a line (sd-daemon(3)). */
const priorities: Readonly<Record<string, number>> = { error: 3, warn: 4, info: 6, debug: 7 };

/** Whether standard error goes to the journal: JOURNAL_STREAM names its device and inode (systemd.exec(5)). */
function isJournal(env: NodeJS.ProcessEnv): boolean {
  const { dev, ino } = fstatSync(2);
  return env['JOURNAL_STREAM'] === `${dev}:${ino}`;
}

/** What gives a line that is no log line its priority in the journal; nothing elsewhere. */
export const journalPrefix = (level: string, env: NodeJS.ProcessEnv): string => (isJournal(env) ? `<${priorities[level] ?? 6}>` : '');

/** A stream that is written to, and what waits in it. */
type Output = Pick<Writable, 'write' | 'writableLength'>;

/** Passes lines on for as long as somebody reads them. What would wait beyond the limit is dropped, and counted: a reader that stands still makes nobody wait and nothing grow. */
export class LogSink extends Writable {
  readonly #output: Output;
  readonly #maxUnreadBytes: number;
  readonly #describe: (dropped: number) => string;
  #dropped = 0;

  constructor(output: Output, maxUnreadBytes: number, describe: (dropped: number) => string) {
    super();
    this.#output = output;
    this.#maxUnreadBytes = maxUnreadBytes;
    this.#describe = describe;
  }

  override _write(line: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#output.writableLength > this.#maxUnreadBytes) this.#dropped += 1;
    else this.#pass(line);
    done();
  }

  #pass(line: Buffer): void {
    if (this.#dropped > 0) this.#output.write(`${this.#describe(this.#dropped)}\n`);
    this.#dropped = 0;
    this.#output.write(line);
  }
}

type Line = Record<string, unknown>;

const forPeople = (info: Line): string => `kms-agent: ${String(info['level'])}: ${String(info['message'])}${formatFields(info)}`;
const forPrograms = (info: Line): string => JSON.stringify({ time: new Date().toISOString(), level: info['level'], message: info['message'], ...pick(info) });
const forJournal = (info: Line): string => `<${priorities[String(info['level'])] ?? 6}>${forPrograms(info)}`;

/**
 * A log on standard error: a line each for a person on a terminal, else JSON; with a priority for the journal.
 * A reader that goes away, or does not read, never ends the agent or holds it up.
 */
export function makeLog({ logLevel, maxUnreadLogBytes }: Pick<Settings, 'logLevel' | 'maxUnreadLogBytes'>): Log {
  process.stderr.on('error', () => undefined); // EPIPE: nobody reads any more, and there is nowhere to say so
  const format = process.stderr.isTTY ? forPeople : isJournal(process.env) ? forJournal : forPrograms;
  const stream = new LogSink(process.stderr, maxUnreadLogBytes, (dropped) =>
    format({ level: 'warn', message: `${dropped} lines of the log were dropped: nobody read them` }),
  );
  const transports = [new winston.transports.Stream({ stream })];
  const logger = winston.createLogger({ level: logLevel, format: winston.format.printf(format), transports });
  const writeDebug = logger.debug.bind(logger);
  return Object.assign(logger, {
    debug: (message: string, fields: LogFields = {}): void => {
      if (logger.level === 'debug') writeDebug(message, fields); // winston writes a line whole before it drops it, and there is one for each request
    },
    setLevel: (wanted: string): void => {
      logger.level = wanted;
    },
  });
}

function pick(info: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(allowedFields.filter((field) => info[field] !== undefined).map((field) => [field, info[field]]));
}

/** An error for the log: its name and where it happened, without a message that could hold somebody's input. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const frames = (error.stack ?? '').split('\n').filter((line) => line.trimStart().startsWith('at '));
  const code = 'code' in error && typeof error.code === 'string' ? ` ${error.code}` : '';
  const inner = error.cause === undefined ? '' : ` caused by ${describeError(error.cause)}`;
  return `${error.name}${code} ${frames[0]?.trim() ?? ''}${inner}`;
}
