import { expect } from 'vitest';
import { passphrase } from './agent.ts';
import { ClockedAgent, dayMs, minuteMs } from './clocked.ts';
import { compare, forgetRotations, isBelieved, letPass, type Model, newKey, outcome, type Real, type Verdict } from './life-model.ts';
import { doStep, keySteps, material, openAll, type Step } from './life-steps.ts';
import { importMaterial } from './material.ts';

/** A walk begins with a key, one that rotates, and the default key with material. */
export async function begin(model: Model, { agent: { kms } }: Real): Promise<void> {
  const [plain, rotating] = [await kms.createKey(), await kms.createKey({ rotationInterval: '7d' })];
  const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
  await importMaterial(kms, keyId, material);
  model.keys.push(newKey(plain.keyId, model), { ...newKey(rotating.keyId, model), intervalMs: 7 * dayMs }, { ...newKey(keyId, model), material: 'there' });
  model.aliases.set('alias/default', keyId);
}

/** Several steps with the same key. */
const inTurn = (name: string, ...parts: readonly (Step | { days: number })[]): Step => ({
  name,
  needsKey: true,
  act: async (model, real, key, pick) => {
    for (const part of parts) {
      const at = model.keys.indexOf(key);
      if (at === -1) return 'ok'; // it is no more
      if ('days' in part) {
        await letPass(model, real, part.days);
        await compare(model, real);
      } else await doStep(part, at + model.keys.length * pick, model, real);
    }
    return 'ok';
  },
});

const k = keySteps;
export const sequences: readonly Step[] = [
  inTurn('disable, schedule, cancel', k.disable, k.schedule, k.cancel),
  inTurn('schedule, pass the window', k.encrypt, k.schedule, { days: 4 }, { days: 4 }),
  inTurn('schedule, cancel, open', k.encrypt, k.schedule, k.open, { days: 3 }, k.cancel, k.enable, k.open),
  inTurn('use, rotate, use', k.encrypt, k.encryptRaw, k.rotate, k.encrypt, k.encryptRaw, k.open),
  inTurn('name, move', k.createAlias, k.moveAlias),
  inTurn('name, move, forget', k.createAlias, k.moveAlias, k.deleteAlias),
  inTurn('stage, choose, use', k.stage, k.setPrimary, k.encrypt, k.open),
];

/** With the key that takes material, whichever is picked. */
const withMaterial = (step: Step): Step => ({
  ...step,
  act: async (model, real, picked, pick) => await step.act(model, real, model.keys.find(({ material: its }) => its !== undefined) ?? picked, pick),
});

export const materialSequences: readonly Step[] = [
  withMaterial(inTurn('material whose time ends', k.importForDays, k.encrypt, { days: 5 }, k.open, { days: 5 }, k.open, k.import, k.open)),
  withMaterial(inTurn('material whose time ends while pending', k.importForDays, k.schedule, { days: 5 }, k.cancel, k.import, k.open)),
  withMaterial(inTurn('material deleted while pending', k.schedule, k.deleteMaterial, k.cancel, k.import, k.open)),
];

/** The wall clock is set. */
async function setWall(model: Model, { agent }: Real, wrongBy: number): Promise<Verdict> {
  await agent.set({ wallMs: agent.now.wallMs + wrongBy - model.wrongBy });
  model.wrongBy = wrongBy;
  return 'ok';
}

/** Locked or not, the agent ends by a signal and comes back locked; then it is unlocked, or not. */
async function restart(model: Model, real: Real, signal: NodeJS.Signals): Promise<Verdict> {
  const from = real.agent.now;
  await real.agent.end(signal);
  real.agent = await ClockedAgent.start(real.folder, {}, { from });
  model.locked = false;
  forgetRotations(model);
  return 'ok';
}

/** What a locked agent answers to all that needs keys. */
async function isRefused(model: Model, work: Promise<unknown>): Promise<boolean> {
  if (model.locked) expect(await outcome(work)).toBe('ERR_AGENT_LOCKED');
  return model.locked;
}

const free = (name: string, act: (model: Model, real: Real, pick: number) => Promise<Verdict>): Step => ({
  name,
  needsKey: false,
  act: async (model, real, _key, pick) => await act(model, real, pick),
});

export const agentSteps = {
  create: free('create', async (model, { agent }, pick) => {
    const intervalMs = pick % 3 === 0 ? 7 * dayMs : undefined;
    const creation = agent.kms.createKey(intervalMs === undefined ? {} : { rotationInterval: '7d' });
    if (await isRefused(model, creation)) return 'ERR_AGENT_LOCKED';
    model.keys.push({ ...newKey((await creation).keyId, model), ...(intervalMs === undefined ? {} : { intervalMs }) });
    return 'ok';
  }),
  createDefault: free('create the default key', async (model, { agent }) => {
    const creation = agent.kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
    if (await isRefused(model, creation)) return 'ERR_AGENT_LOCKED';
    const expected = model.keys.some(({ material: its }) => its !== undefined) ? 'ERR_ALREADY_EXISTS' : 'ok';
    expect(await outcome(creation)).toBe(expected);
    if (expected !== 'ok') return expected;
    const { keyId } = await creation;
    model.keys.push({ ...newKey(keyId, model), material: 'gone' });
    model.aliases.set('alias/default', keyId);
    return 'ok';
  }),
  time: free('time', async (model, real, pick) => {
    await letPass(model, real, (pick % 5) + 1);
    return 'ok';
  }),
  setClock: free('set the clock', (model, real, pick) => setWall(model, real, ((pick % 7) - 3) * 5 * dayMs)),
  rightClock: free('put the clock right', (model, real) => setWall(model, real, model.believedWrongBy)),
  confirmClock: free('confirm the clock', async (model, { agent }) => {
    const confirming = agent.kms.confirmClock();
    if (await isRefused(model, confirming)) return 'ERR_AGENT_LOCKED';
    await confirming;
    model.believedWrongBy = model.wrongBy;
    return 'ok';
  }),
  boot: free('start the machine anew', async (model, real) => {
    if (model.locked || !isBelieved(model)) return 'ERR_STATE_CONFLICT'; // what is believed then is the business of tests of its own
    const { wallMs, bootId } = real.agent.now;
    await real.agent.end();
    model.running += minuteMs;
    model.real += dayMs;
    real.agent = await ClockedAgent.start(real.folder, {}, { from: { wallMs: wallMs + dayMs, bootMs: minuteMs, bootId: `${bootId}'` } });
    forgetRotations(model);
    return 'ok';
  }),
  restart: free('restart', (model, real, pick) => restart(model, real, pick % 2 === 0 ? 'SIGTERM' : 'SIGKILL')),
  lock: free('lock or unlock', async (model, { agent }) => {
    if (model.locked) await agent.kms.unlock({ passphrase });
    else await agent.kms.lock();
    model.locked = !model.locked;
    forgetRotations(model);
    return 'ok';
  }),
} satisfies Record<string, Step>;

/** The end of a walk: every living key is brought back to life and opens all that it ever made; what the dead made stays closed. */
export async function finish(model: Model, real: Real): Promise<void> {
  if (model.locked) await doStep(agentSteps.lock, 0, model, real);
  for (const [at, key] of model.keys.entries()) {
    await openAll(model, real, key);
    if (key.windowEnd !== undefined) await doStep(k.cancel, at, model, real);
    if (key.material === 'gone') await doStep(k.import, at, model, real);
    if (key.disabled) await doStep(k.enable, at, model, real);
    expect(await openAll(model, real, key)).toBe('ok');
  }
  for (const ciphertextBlob of model.lost) expect(await outcome(real.agent.kms.advanceDecrypt({ ciphertextBlob }))).toBe('ERR_INVALID_CIPHERTEXT');
}
