/** An answer that left the agent. */
export interface AnsweredRequest {
  readonly method: string;
  /** `ok` or the code of the error. */
  readonly outcome: string;
  /** Where the key lives; empty for what has no key. */
  readonly provider: string;
  readonly seconds: number;
}

/** Upper bounds of durations in seconds: from what stays in memory to what a slow token needs. */
export const bounds: readonly number[] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30];

/** How long answers took. */
export interface Durations {
  /** How many were within each bound and above the one before it; the last is of those above all bounds. */
  readonly counts: Float64Array;
  /** Seconds, of all. */
  sum: number;
}

/** A value for two labels. */
type ByLabels<T> = Map<string, Map<string, T>>;

/** What was answered since the start: counted here, on the way of every request, and written elsewhere when somebody asks. */
export class AnswerCounts {
  readonly #requests: ByLabels<{ count: number }> = new Map();
  readonly #durations: ByLabels<Durations> = new Map();

  count({ method, outcome, provider, seconds }: AnsweredRequest): void {
    find(this.#requests, method, outcome, () => ({ count: 0 })).count += 1;
    const durations = find(this.#durations, method, provider, () => ({ counts: new Float64Array(bounds.length + 1), sum: 0 }));
    let place = 0;
    while (seconds > (bounds[place] ?? Number.POSITIVE_INFINITY)) place += 1;
    durations.counts[place] = (durations.counts[place] ?? 0) + 1;
    durations.sum += seconds;
  }

  /** By method and outcome. */
  requests(): { readonly method: string; readonly outcome: string; readonly count: number }[] {
    return entriesOf(this.#requests).map(([method, outcome, { count }]) => ({ method, outcome, count }));
  }

  /** By method and where the key lives. */
  durations(): ({ readonly method: string; readonly provider: string } & Durations)[] {
    return entriesOf(this.#durations).map(([method, provider, durations]) => ({ method, provider, ...durations }));
  }
}

/** Two maps and no joined name: a name that is made anew has to be hashed anew. */
function find<T>(all: ByLabels<T>, first: string, second: string, make: () => T): T {
  const known = all.get(first)?.get(second);
  if (known !== undefined) return known;
  const made = make();
  all.set(first, (all.get(first) ?? new Map<string, T>()).set(second, made));
  return made;
}

const entriesOf = <T>(all: ByLabels<T>): [string, string, T][] =>
  [...all].flatMap(([first, its]) => [...its].map(([second, value]): [string, string, T] => [first, second, value]));
