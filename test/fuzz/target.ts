import fc from 'fast-check';

/** How often, and from which seed. */
export interface RunOptions {
  readonly seed: number;
  readonly runs: number;
}

/** How it went. */
export interface Outcome {
  readonly runs: number;
  /** The smallest example that broke the promise, and how; undefined when none did. */
  readonly finding?: string;
}

/** Runs a property. */
export type Proof = (options: RunOptions) => Promise<Outcome>;

/** Something that is fuzzed, and what must hold of it whatever comes. */
export interface Target {
  readonly name: string;
  readonly promise: string;
  /** Runs in `npm test`: a few seconds. */
  readonly runs: number;
  /** Prepares what the property works on; `stack` takes it down again. */
  readonly open: (stack: AsyncDisposableStack) => Promise<Proof> | Proof;
}

/** Milliseconds that the search for a smaller example may take. */
const shrinkMs = 20_000;

/** Ties values to what must hold of each of them. @param check - throws when it does not hold. */
export function prove<T>(values: fc.Arbitrary<T>, check: (value: T) => Promise<void> | void): Proof {
  return async ({ seed, runs }) => {
    let failedSince: number | undefined;
    const property = fc.asyncProperty(values, async (value) => {
      if (failedSince !== undefined && performance.now() - failedSince > shrinkMs) return; // what was found is small enough
      try {
        await check(value);
      } catch (error) {
        failedSince ??= performance.now();
        throw error;
      }
    });
    const details = await fc.check(property, { seed, numRuns: runs });
    if (!details.failed) return { runs: details.numRuns };
    return { runs: details.numRuns, finding: describe(details) };
  };
}

/** Characters of an example that are shown. */
const shownChars = 6000;

function describe<T>({ errorInstance, counterexample, counterexamplePath }: fc.RunDetails<[T]>): string {
  const what = errorInstance instanceof Error ? (errorInstance.stack ?? errorInstance.message) : String(errorInstance);
  return `${what}\nexample (path ${counterexamplePath}): ${fc.stringify(counterexample?.[0]).slice(0, shownChars)}`;
}

/** @throws Error that says what does not hold. */
export function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}
