import { cpus, release, totalmem } from 'node:os';
import { type Line, short } from './row.ts';

/** What a run saw, as `--json` gives it and `--compare` reads it. */
export interface Report {
  readonly machine: string;
  readonly node: string;
  readonly date: string;
  readonly missing: readonly string[];
  readonly lines: readonly Line[];
}

export function describeMachine(): string {
  const all = cpus();
  return `${all.length} × ${all[0]?.model ?? 'unknown processor'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release().split('-')[0]}`;
}

const mark = (reached: boolean): string => (reached ? 'reached' : 'NOT reached');

const figuresText = ({ figures }: Line): string =>
  Object.entries(figures)
    .map(([name, value]) => (name === 'per second' ? `${short(value)}/s` : `${name} ${short(value)}`))
    .join(', ');

const verdictText = ({ verdicts }: Line): string =>
  verdicts.map(({ against, ratio, reach, reached }) => `${short(ratio)} of ${against} (${reach}: ${mark(reached)})`).join('; ');

/** The table for a terminal. */
export function printTable(lines: readonly Line[]): string {
  const width = Math.max(...lines.map(({ name }) => name.length));
  const rows = Map.groupBy(lines, ({ row }) => row);
  const text = [...rows].map(([row, its]) => {
    const body = its.flatMap((line) => [
      `  ${line.name.padEnd(width)}  ${figuresText(line)}`,
      ...line.verdicts.map((verdict) => `      ${verdictText({ ...line, verdicts: [verdict] })}`),
    ]);
    return [row, ...body].join('\n');
  });
  return text.join('\n\n');
}

/** The table for a page. */
export function markdownTable(lines: readonly Line[]): string {
  const cells = lines.map((line, index) => [line.row === lines[index - 1]?.row ? '' : line.row, line.name, figuresText(line), verdictText(line)]);
  return ['| what | who | figures | ratio, ours to theirs |', '|---|---|---|---|', ...cells.map((row) => `| ${row.join(' | ')} |`)].join('\n');
}

/** How this run's ratios and figures differ from those of an older one; figures of different machines say nothing, ratios do. */
export function compareReports(before: Report, now: Report): string {
  const old = new Map(before.lines.map((line) => [`${line.row}\n${line.name}`, line]));
  const changes = now.lines.flatMap((line) => {
    const other = old.get(`${line.row}\n${line.name}`);
    if (!other) return [`${line.row}, ${line.name}: new`];
    const figures = Object.entries(line.figures).flatMap(([name, value]) => changeOf(name, other.figures[name], value));
    const ratios = line.verdicts.flatMap(({ against, ratio }) =>
      changeOf(`ratio to ${against}`, other.verdicts.find((verdict) => verdict.against === against)?.ratio, ratio),
    );
    return [`${line.row}, ${line.name}: ${[...figures, ...ratios].join(', ')}`];
  });
  const gone = before.lines
    .filter((line) => !now.lines.some(({ row, name }) => row === line.row && name === line.name))
    .map(({ row, name }) => `${row}, ${name}: gone`);
  return [...changes, ...gone].join('\n');
}

function changeOf(name: string, before: number | undefined, now: number): string[] {
  if (before === undefined) return [`${name} ${short(now)} (new)`];
  const percent = before === 0 ? '' : ` (${now >= before ? '+' : '−'}${Math.abs(Math.round((now / before - 1) * 100))} %)`;
  return [`${name} ${short(before)} → ${short(now)}${percent}`];
}
