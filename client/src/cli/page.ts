import { escapeControls, paintState } from './print.ts';

/** A line of a page: its name and what it says; undefined for a line that there is not. */
export type PageLine = readonly [name: string, value: string | readonly string[]] | undefined;

const day = (time: string): string => time.replace('T', ' ').replace(/\.\d+Z$/, ' UTC');

const unitSeconds = [
  [86_400, 'day'],
  [3600, 'hour'],
  [60, 'minute'],
] as const;

/** How long until a time, in the largest unit that fits. */
function describeSpan(time: string, nowMs: number): string {
  const seconds = Math.round((Date.parse(time) - nowMs) / 1000);
  const [size, unit] = unitSeconds.find(([of]) => Math.abs(seconds) >= of) ?? ([1, 'second'] as const);
  const count = Math.floor(Math.abs(seconds) / size);
  const text = `${count} ${unit}${count === 1 ? '' : 's'}`;
  return seconds < 0 ? `${text} ago` : `in ${text}`;
}

/** A time, and how far it is from now. */
export const describeTime = (time: string, nowMs: number): string => `${day(time)} (${describeSpan(time, nowMs)})`;

/** A count of something, in the right number. */
export const describeCount = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

/** Lays a page out: names on the left, values under one another; the first word of a State is coloured on a terminal. */
export function formatPage(lines: readonly PageLine[]): string {
  const shown = lines.filter((line) => line !== undefined);
  const width = Math.max(...shown.map(([name]) => name.length));
  const paint = (name: string, value: string): string => (name === 'State' ? escapeControls(value).replace(/^\w+/, paintState) : escapeControls(value));
  return shown.flatMap(([name, value]) => [value].flat().map((text, index) => `${(index === 0 ? name : '').padEnd(width)}  ${paint(name, text)}\n`)).join('');
}
