import type { LoadResult } from './work/work.ts';

/** What is measured of a load. */
export type Figure = 'perSecond' | 'p50Us' | 'p99Us';

/** What a row must reach beside others; with several of them, beside the best. */
export interface Claim {
  readonly figure: Figure;
  readonly against: readonly string[];
  /** A ratio, ours to theirs. */
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** A claim, and what came of it. */
export interface Verdict {
  readonly against: string;
  readonly ratio: number;
  readonly reach: string;
  readonly reached: boolean;
}

/** One line of the table: a figure of ours or of somebody else's. */
export interface Line {
  readonly row: string;
  readonly name: string;
  /** By their names: operations a second, microseconds, milliseconds, MiB. */
  readonly figures: Readonly<Record<string, number>>;
  readonly verdicts: readonly Verdict[];
}

const isBetter: Record<Figure, (a: number, b: number) => boolean> = {
  perSecond: (a, b) => a > b,
  p50Us: (a, b) => a < b,
  p99Us: (a, b) => a < b,
};

/** Compares a load of ours with the best of those that were measured beside it; nothing where none was. */
export function judge(claim: Claim, ours: LoadResult, all: ReadonlyMap<string, LoadResult>): Verdict | undefined {
  const measured = claim.against.flatMap((name) => (all.has(name) ? [{ name, value: all.get(name)?.[claim.figure] ?? Number.NaN }] : []));
  const best = measured.reduce<(typeof measured)[number] | undefined>(
    (a, b) => (a === undefined || isBetter[claim.figure](b.value, a.value) ? b : a),
    undefined,
  );
  return best && compare(ours[claim.figure], best.value, best.name, claim);
}

/** @param limits - the ratio that must be reached, ours to theirs. */
export function compare(ours: number, theirs: number, against: string, limits: { atLeast?: number; atMost?: number }): Verdict {
  const { atLeast = 0, atMost = Number.POSITIVE_INFINITY } = limits;
  const ratio = ours / theirs;
  const reach = [...(atLeast > 0 ? [`≥ ${short(atLeast)}`] : []), ...(Number.isFinite(atMost) ? [`≤ ${short(atMost)}`] : [])].join(' and ');
  return { against, ratio, reach, reached: ratio >= atLeast && ratio <= atMost };
}

/** A number with about three digits. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
