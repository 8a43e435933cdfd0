import { stripVTControlCharacters } from 'node:util';
import { encodeBase64 } from '@kms-agent/protocol';

const toJson = (_name: string, value: unknown): unknown => (value instanceof Uint8Array ? encodeBase64(value) : value);

/** A result as JSON, bytes as base64: the form of the wire. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, toJson, 2)}\n`);
}

/** What somebody else wrote must not move the cursor, forge a line, colour the page, or turn the direction of what stands beside it. */
export function escapeControls(value: string): string {
  return value.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`);
}

function describeValue(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(describeValue).join(', ');
  if (value instanceof Uint8Array) return encodeBase64(value);
  if (typeof value === 'object' && value !== null)
    return (
      Object.entries(value)
        .map(([name, inner]) => `${name}=${describeValue(inner)}`)
        .join(' ') || '-'
    );
  return value === '' ? '-' : escapeControls(String(value));
}

/** A result as a page: a line a field. */
export function printPage(result: object): void {
  const entries = Object.entries(result);
  const width = Math.max(0, ...entries.map(([name]) => name.length));
  for (const [name, value] of entries) process.stdout.write(`${name.padEnd(width)}  ${describeValue(value)}\n`);
}

const colors: Readonly<Record<string, string>> = {
  Enabled: '32',
  Disabled: '33',
  PendingDeletion: '31',
  PendingImport: '36',
  Unavailable: '31',
  UNLOCKED: '32',
  LOCKED: '33',
  UNINITIALIZED: '36',
};

/** A state of a key or of the agent, in colour on a terminal that wants it (https://no-color.org). */
export function paintState(state: string): string {
  const color = Object.hasOwn(colors, state) ? colors[state] : undefined;
  const isWanted = process.stdout.isTTY && !process.env['NO_COLOR'];
  return isWanted && color ? `\u001b[${color}m${state}\u001b[0m` : state;
}

/** Columns that a text takes, colours not counted. */
const widthOf = (text: string): number => stripVTControlCharacters(text).length;

/** Rows under headings, as wide as they need to be. */
export function printTable(headings: readonly string[], rows: readonly (readonly unknown[])[]): void {
  const cells = [headings, ...rows.map((row) => row.map(describeValue))];
  const stateColumn = headings.indexOf('STATE');
  const widths = headings.map((_, column) => cells.reduce((widest, row) => Math.max(widest, widthOf(row[column] ?? '')), 0));
  for (const row of cells)
    process.stdout.write(
      `${row
        .map((cell, column) => (column === stateColumn ? paintState(cell) : cell) + ' '.repeat(Math.max((widths[column] ?? 0) - widthOf(cell), 0)))
        .join('  ')
        .trimEnd()}\n`,
    );
}

/** A result as JSON if so asked, else as a page. */
export function printResult(result: object, json: boolean | undefined): void {
  if (json) printJson(result);
  else printPage(result);
}
