import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Peers } from './peers.ts';
import { makeBench } from './rig.ts';
import type { Line } from './row.ts';
import type { Thoroughness } from './run-load.ts';
import { sectionsOf } from './sections.ts';
import { compareReports, describeMachine, markdownTable, printTable, type Report } from './table.ts';

const help = `npm run bench -- [options]

Measures kms-agent beside what people use today, in one run on this machine, and prints one table with the ratio beside each figure.
It fails on a wrong answer, never on a slow one. Peers that are not installed are named and left out.

  --quick         two minutes' look: one round, short, without curves and files
  --rounds N      how often each is measured, the median counts (default 5)
  --only TEXT     only rows whose name contains TEXT; may be repeated
  --json          the report as JSON, for machines and for --compare
  --compare FILE  what changed since the report in FILE
  --save          writes the table into test/bench/README.md
  --help          this text

  npm run --silent bench -- --json > before.json
  npm run bench -- --compare before.json --only RSA`;

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean', default: false },
    compare: { type: 'string' },
    save: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const thorough: Thoroughness = { rounds: Number(values.rounds), seconds: 2, warmUpSeconds: 1 };
if (!Number.isInteger(thorough.rounds) || thorough.rounds < 1) throw new RangeError(`--rounds is a number from 1: ${values.rounds}`);
const quick: Thoroughness = { rounds: 1, seconds: 0.7, warmUpSeconds: 0.3 };

/** Says on a terminal what is being measured, and how often it was. */
class Progress {
  #done = 0;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
    this.#show();
  }

  readonly step = (): void => {
    this.#done += 1;
    this.#show();
  };

  #show(): void {
    if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${this.#name}: ${this.#done} measured`);
  }

  static end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  }
}

async function measureAll(thoroughness: Thoroughness, missing: string[]): Promise<Line[]> {
  await using stack = new AsyncDisposableStack();
  const peers = stack.use(new Peers());
  const bench = await makeBench(stack, peers);
  missing.push(...peers.missing);
  const isWanted = (name: string): boolean => values.only.length === 0 || values.only.some((text) => name.includes(text));
  const sections = sectionsOf({ bench, stack, thoroughness, missing, isQuick: values.quick && values.only.length === 0 });
  const lines: Line[] = [];
  for (const { name, measure } of sections.filter((section) => isWanted(section.name))) lines.push(...(await measure(new Progress(name).step)));
  Progress.end();
  return lines;
}

/** Puts the table between the marks of the page. */
function save({ machine, node, date, lines }: Report): void {
  const page = new URL('./README.md', import.meta.url);
  const [begin, end] = ['<!-- results -->', '<!-- end of results -->'];
  const text = readFileSync(page, 'utf8');
  const table = `${begin}\n${date}, Node ${node}, ${machine}.\n\n${markdownTable(lines)}\n${end}`;
  writeFileSync(page, text.slice(0, text.indexOf(begin)) + table + text.slice(text.indexOf(end) + end.length));
}

async function main(): Promise<void> {
  if (values.help) return console.log(help);
  const before = values.compare === undefined ? undefined : (JSON.parse(readFileSync(values.compare, 'utf8')) as Report);
  const missing: string[] = [];
  const lines = await measureAll(values.quick ? quick : thorough, missing);
  const report: Report = { machine: describeMachine(), node: process.versions.node, date: new Date().toISOString().slice(0, 10), missing, lines };
  if (missing.length > 0) console.error(`not installed, and left out: ${missing.join(', ')}`);
  if (values.save) save(report);
  if (values.json) console.log(JSON.stringify(report, undefined, 2));
  else console.log(before ? compareReports(before, report) : printTable(lines));
}

await main();
