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
] as const;

/** Fields of a log line. */
export type LogFields = Partial<Record<(typeof allowedFields)[number], string | number>>;

/** Diagnostics for the operator; never the audit record. */
export interface Log {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
}

function formatFields(info: Record<string, unknown>): string {
  const known = allowedFields.filter((field) => info[field] !== undefined);
  return known.map((field) => ` ${field}=${JSON.stringify(info[field])}`).join('');
}

/** A log on standard error: a line each for a person on a terminal, JSON for a journal. A reader that goes away never ends the agent. */
export function makeLog(level: string): Log {
  process.stderr.on('error', () => undefined); // EPIPE: nobody reads any more, and there is nowhere to say so
  const human = winston.format.printf((info) => `kms-agent: ${info.level}: ${String(info.message)}${formatFields(info)}`);
  const machine = winston.format.printf((info) => JSON.stringify({ time: new Date().toISOString(), level: info.level, message: info.message, ...pick(info) }));
  const transport = new winston.transports.Stream({ stream: process.stderr });
  return winston.createLogger({ level, format: process.stderr.isTTY ? human : machine, transports: [transport] });
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
