import { curveRows, sessionCurve } from './curves.ts';
import { fairness, quickBesideSlow } from './fairness.ts';
import { workerCurve } from './processes.ts';
import { serveAgent } from './rig.ts';
import type { Line } from './row.ts';
import { type Bench, loadRows, measureRow, type Row } from './rows.ts';
import type { Thoroughness } from './run-load.ts';
import { idleConnections, manyConnections, manyKeys } from './scale.ts';
import { start, startByImport } from './start.ts';
import { streams } from './streams.ts';

/** A part of the table. */
export interface Section {
  readonly name: string;
  readonly measure: (onDone: () => void) => Promise<Line[]>;
}

export interface SectionOptions {
  readonly bench: Bench;
  /** Ends what sections start. */
  readonly stack: AsyncDisposableStack;
  readonly thoroughness: Thoroughness;
  /** Hears of what is not installed. */
  readonly missing: string[];
  /** Whether there is time for a look only. */
  readonly isQuick: boolean;
}

/** All that is measured, in the order of the table. */
export function sectionsOf({ bench, stack, thoroughness, missing, isQuick }: SectionOptions): Section[] {
  const { agent, keys, token } = bench;
  const section = (row: Row): Section => ({ name: row.name, measure: (step) => measureRow(row, thoroughness, step) });
  const always: Section[] = [
    ...loadRows(bench).map(section),
    { name: '1,000 connections, each one request a second', measure: (step) => manyConnections(agent, keys.aes, thoroughness, step) },
    { name: 'a polite client beside a greedy one', measure: (step) => fairness(agent, keys.aes, thoroughness, step) },
    { name: 'sign EC_P256 beside RSA_2048', measure: (step) => quickBesideSlow(agent, keys, thoroughness, step) },
    { name: 'a vault of very many keys', measure: (step) => manyKeys(stack, [100, 10_000, 100_000], thoroughness, step) },
    { name: 'memory of connections', measure: async () => await idleConnections(await serveAgent(stack), 1000) },
    { name: 'start to ready, locked', measure: (step) => start(2 * thoroughness.rounds + 1, step) },
  ];
  const long: Section[] = [
    { name: 'start by import', measure: async (step) => startByImport(2 * thoroughness.rounds + 1, step) },
    { name: 'a file of 1,024 MiB', measure: (step) => streams(agent, keys.aes, 1024, 2 * thoroughness.rounds + 2, missing, step) },
    ...curveRows(bench).map(section),
    ...(['sign', 'advanceEncrypt'] as const).map((operation) => ({
      name: `curve: processes behind one socket, ${operation}`,
      measure: (step: () => void) => workerCurve(operation, thoroughness, step),
    })),
    ...(token ? [{ name: 'curve: sessions in SoftHSM', measure: (step: () => void) => sessionCurve(thoroughness, step) }] : []),
  ];
  return isQuick ? always : [...always, ...long];
}
