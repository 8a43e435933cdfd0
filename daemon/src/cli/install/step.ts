/** One thing that an installation makes sure of. Looking at it changes nothing, and doing it twice is doing it once. */
export interface Step {
  readonly name: string;
  /** What it makes sure of, for a person. */
  readonly will: string;
  /** Whether nothing is left to do. It must also hold before earlier steps have run. */
  isDone(): boolean | Promise<boolean>;
  /** @returns what came of it that somebody must see. */
  run(): Outcome | Promise<Outcome>;
}

/** What a step shows, by name; nothing for most. */
export type Outcome = Readonly<Record<string, string>>;

/** A step that failed halfway. */
export class HalfDone extends Error {
  /** What somebody must see all the same. */
  readonly result: Outcome;

  constructor(cause: Error, result: Outcome) {
    super(cause.message, { cause });
    this.result = result;
  }
}

/** How a step ended. */
export interface StepReport {
  readonly name: string;
  readonly will: string;
  readonly outcome: 'already' | 'done' | 'would' | 'failed';
  readonly result?: Outcome;
}

/** How to run steps. */
export interface StepOptions {
  readonly dryRun: boolean;
  /** Hears of each step as it ends: a recovery code must be seen even if a later step fails. */
  readonly onReport: (report: StepReport) => void;
}

const nothing: Outcome = {};

async function runStep(step: Step, dryRun: boolean): Promise<StepReport> {
  const { name, will } = step;
  if (await step.isDone()) return { name, will, outcome: 'already' };
  if (dryRun) return { name, will, outcome: 'would' };
  const result = await step.run();
  return { name, will, outcome: 'done', ...(Object.keys(result).length === 0 ? {} : { result }) };
}

/** Runs steps in order and stops at the first that fails. @throws what it threw. */
export async function runSteps(steps: readonly Step[], { dryRun, onReport }: StepOptions): Promise<void> {
  for (const step of steps) {
    try {
      onReport(await runStep(step, dryRun));
    } catch (error) {
      onReport({ name: step.name, will: step.will, outcome: 'failed', ...(error instanceof HalfDone ? { result: error.result } : {}) });
      throw error;
    }
  }
}

/** A step without anything to show. */
export function plainStep(name: string, will: string, isDone: Step['isDone'], work: () => void | Promise<void>): Step {
  return {
    name,
    will,
    isDone,
    run: async () => {
      await work();
      return nothing;
    },
  };
}

/** A step, and whether it had something to do when it was looked at, for a later one. */
export function remember(step: Step): { readonly step: Step; readonly wasNeeded: () => boolean } {
  let needed = false;
  const isDone = async (): Promise<boolean> => {
    const done = await step.isDone();
    needed = !done;
    return done;
  };
  return { step: { ...step, isDone }, wasNeeded: () => needed };
}
