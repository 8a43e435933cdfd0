import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TempFolder } from '../kit/agent.ts';
import { ClockedAgent, makeVault } from '../kit/clocked.ts';
import { newModel, type Real } from '../kit/life-model.ts';
import { doStep, keySteps, type Step } from '../kit/life-steps.ts';
import { agentSteps, begin, finish, materialSequences, sequences } from '../kit/life-walk.ts';

/** How many walks; more by hand. A failure names its seed, which may be given to walk the same again. */
const runs = Number(process.env['KMS_AGENT_MODEL_RUNS'] ?? 40);
const seed = process.env['KMS_AGENT_MODEL_SEED'] === undefined ? {} : { seed: Number(process.env['KMS_AGENT_MODEL_SEED']) };
/** Steps of each walk; a sequence is one. Fewer are never run: short walks find nothing. */
const stepsOfWalk = 40;

/** What thirty walks do at least, less than a quarter of what they do on average: a test that does nothing does not pass. */
const atLeast = {
  cancel: 10,
  'cancel back to Disabled': 3,
  'cancel back to PendingImport': 3,
  'create alias': 12,
  'delete alias': 6,
  'delete material': 6,
  destroyed: 6,
  'encrypt raw': 12,
  encrypt: 40,
  expired: 6,
  import: 15,
  'lock or unlock': 5,
  'move alias': 10,
  opened: 100,
  'opened after a rotation': 80,
  protect: 4,
  restart: 3,
  rotate: 6,
  'rotated by time': 20,
  'set primary': 6,
  'set the clock': 3,
  stage: 8,
  tag: 4,
  untag: 4,
};

const weighted = (weight: number, steps: readonly Step[]): { arbitrary: fc.Arbitrary<Step>; weight: number } => ({
  arbitrary: fc.constantFrom(...steps),
  weight,
});
const { time, create, createDefault, ...rare } = agentSteps;
const step = fc.oneof(
  weighted(50, Object.values(keySteps)),
  weighted(22, sequences),
  weighted(8, materialSequences),
  weighted(10, [time]),
  weighted(6, [create, createDefault]),
  weighted(10, Object.values(rare)),
);
/** A step and the number that chooses its key and its details. */
const move = fc.tuple(step, fc.nat(1000)).map(([chosen, pick]) => ({ chosen, pick, toString: () => `${chosen.name}(${pick})` }));

test(`random walks through the life of keys, ${runs} of them: the agent is what a small model says, restarts and kills included`, {
  timeout: 600_000,
}, async () => {
  const done = new Map<string, number>();
  const walk = async (moves: readonly { chosen: Step; pick: number }[]): Promise<void> => {
    using folder = new TempFolder();
    await makeVault(folder);
    const real: Real = { folder, agent: await ClockedAgent.start(folder) };
    const model = newModel(done);
    try {
      await begin(model, real);
      for (const { chosen, pick } of moves) await doStep(chosen, pick, model, real);
      await finish(model, real);
    } finally {
      await real.agent.end();
    }
  };
  const moves = fc.array(move, { minLength: stepsOfWalk, maxLength: stepsOfWalk, size: 'max' });
  const strand = (numRuns: number): Promise<void> => fc.assert(fc.asyncProperty(moves, walk), { numRuns, endOnFailure: true, ...seed });
  await Promise.all([strand(Math.ceil(runs / 2)), strand(Math.floor(runs / 2))]); // an agent mostly waits
  const counts = [...done].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, count]) => `${name} ${count}`);
  console.log(`model: ${runs} walks, ${runs * stepsOfWalk} steps; of them ${counts.join(', ')}`);
  const tooRare = Object.entries(atLeast).filter(([name, count]) => (done.get(name) ?? 0) < (count * runs) / 30);
  expect(tooRare.map(([name]) => `${name} ${done.get(name) ?? 0}`)).toEqual([]);
});
