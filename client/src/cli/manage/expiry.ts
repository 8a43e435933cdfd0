import { UsageError } from '../files.ts';

const datePattern = /^\d{4}-\d\d-\d\d$/;
const timePattern = /^(\d{4}-\d\d-\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/;

/** A day that no calendar has is moved on by Date.parse, or is none to it. */
function isDay(date: string): boolean {
  const time = Date.parse(`${date}T00:00:00Z`);
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(date);
}

/**
 * The time that a person means: a date, whose midnight in UTC it is, or RFC 3339 with its zone. Data cannot be read from then on, so nothing is guessed.
 * @returns RFC 3339 in UTC with milliseconds.
 * @throws UsageError for anything else, also for a date that no calendar has.
 */
export function parseExpiry(text: string): string {
  const date = datePattern.test(text) ? text : timePattern.exec(text)?.[1];
  if (date === undefined || !isDay(date))
    throw new UsageError(`--expires takes a date such as 2030-01-31 (its midnight in UTC) or a time with a zone such as 2030-01-31T12:00:00Z, not ${text}`);
  return new Date(text).toISOString();
}
