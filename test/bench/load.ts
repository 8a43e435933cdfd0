import { open } from './work/open.ts';
import { type LoadResult, type LoadSpec, type Session, WrongAnswer } from './work/work.ts';

/*
 * A process that makes load: `node load.ts SPEC`, a LoadSpec as JSON; prints a LoadResult. It is a process of its own so that what is measured shares
 * no event loop with what measures.
 */

/** One call in so many is checked against node:crypto. */
const checkEvery = 256;

class Meter {
  #latencies: number[] = [];
  #count = 0;
  errors = 0;

  begin(): void {
    this.#latencies = [];
    this.errors = 0;
  }

  /** Makes calls one after the other for as long as they may go on. */
  async run(session: Session, mayGoOn: (nowMs: number) => boolean): Promise<void> {
    for (let started = performance.now(); mayGoOn(started); started = performance.now()) {
      this.#count += 1;
      try {
        const answer = session.call(this.#count % checkEvery === 1);
        if (answer) await answer;
        this.#latencies.push(performance.now() - started);
      } catch (error) {
        if (error instanceof WrongAnswer) throw error;
        this.errors += 1; // no operation: to refuse is quicker
      }
    }
  }

  result(seconds: number): LoadResult {
    const sorted = Float64Array.from(this.#latencies).sort();
    const at = (part: number): number => Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0) * 1000);
    return { count: sorted.length, perSecond: sorted.length / seconds, p50Us: at(0.5), p99Us: at(0.99), errors: this.errors };
  }
}

/** As many calls as there is time for, `inFlight` at once. */
async function press(sessions: readonly Session[], inFlight: number, seconds: number, meter: Meter): Promise<number> {
  const started = performance.now();
  const end = started + seconds * 1000;
  const mayGoOn = (nowMs: number): boolean => nowMs < end;
  await Promise.all(sessions.flatMap((session) => Array.from({ length: inFlight }, () => meter.run(session, mayGoOn))));
  return (performance.now() - started) / 1000;
}

/** So many calls a second on each session, each at its time, whether those before it were answered or not. */
async function pace(sessions: readonly Session[], ratePerSecond: number, seconds: number, meter: Meter): Promise<number> {
  const started = performance.now();
  const running: Promise<void>[] = [];
  const calls = sessions.flatMap((session, index) =>
    Array.from({ length: Math.round(seconds * ratePerSecond) }, (_, turn) => ({ session, at: ((turn + index / sessions.length) * 1000) / ratePerSecond })),
  );
  calls.sort((a, b) => a.at - b.at);
  for (const { session, at } of calls) {
    const waitMs = started + at - performance.now();
    if (waitMs > 1) await new Promise((resolve) => setTimeout(resolve, waitMs));
    let left = 1;
    running.push(meter.run(session, () => left-- > 0));
  }
  await Promise.all(running);
  return (performance.now() - started) / 1000;
}

async function main(): Promise<void> {
  const spec = JSON.parse(process.argv[2] ?? '') as LoadSpec;
  const sessions: Session[] = [];
  while (sessions.length < spec.connections) sessions.push(await open(spec.work)); // one after the other: several processes that accept share them
  const meter = new Meter();
  const go = (seconds: number): Promise<number> =>
    spec.ratePerSecond === undefined ? press(sessions, spec.inFlight, seconds, meter) : pace(sessions, spec.ratePerSecond, seconds, meter);
  await go(spec.warmUpSeconds);
  meter.begin();
  const seconds = await go(spec.seconds);
  console.log(JSON.stringify(meter.result(seconds)));
  for (const session of sessions) session.close();
}

await main();
process.exit(0); // modules and pools may keep it
