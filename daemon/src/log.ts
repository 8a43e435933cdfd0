import { fstatSync } from 'node:fs';
import winston from 'winston';

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

/** A log on standard error: a line each for a person on a terminal, else JSON; with a priority for the journal. A reader that goes away never ends the agent. */
export function makeLog(level: string): Log {
  process.stderr.on('error', () => undefined); // EPIPE: nobody reads any more, and there is nowhere to say so
  const withPriority = isJournal(process.env);
  const human = winston.format.printf((info) => `kms-agent: ${info.level}: ${String(info.message)}${formatFields(info)}`);
  const machine = winston.format.printf((info) => {
    const line = JSON.stringify({ time: new Date().toISOString(), level: info.level, message: info.message, ...pick(info) });
    return withPriority ? `<${priorities[info.level] ?? 6}>${line}` : line;
  });
  const transport = new winston.transports.Stream({ stream: process.stderr });
  const logger = winston.createLogger({ level, format: process.stderr.isTTY ? human : machine, transports: [transport] });
  return Object.assign(logger, {
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
