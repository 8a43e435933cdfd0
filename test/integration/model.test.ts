import { type EncryptResult, type ErrorCode, isAgentError, utf8 } from '@kms-agent/client';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { passphrase, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, dayMs, hourMs, makeVault, minuteMs, startMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';

/** How many walks; more by hand. */
const runs = Number(process.env['KMS_AGENT_MODEL_RUNS'] ?? 25);
const message = utf8('what is kept');
const material = new Uint8Array(32).fill(7);

/** What a key must be like, by the rules and by nothing of the agent's code. */
interface ModelKey {
  keyId: string;
  disabled: boolean;
  protected: boolean;
  /** On the count of running time. */
  windowEnd?: number;
  versions: number;
  primary: number;
  /** Versions that have encrypted. */
  used: Set<number>;
  intervalMs?: number;
  lastRotation: number;
  blobs: Uint8Array[];
  /** What was encrypted raw. */
  raw: Pick<EncryptResult, 'ciphertextBlob' | 'iv' | 'keyVersionId'>[];
  /** It was rotated by a clock that cannot be believed: not again by that. */
  rotatedUnbelieved: boolean;
  /** Of the default key, which takes imported material: what it has. */
  material?: 'there' | 'gone';
}

interface Model {
  /** Milliseconds that the machine was on. */
  running: number;
  /** Milliseconds that went by, whether it was on or off. */
  real: number;
  /** By how much the wall clock is wrong, and by how much it may be without anybody knowing. */
  wrongBy: number;
  believedWrongBy: number;
  locked: boolean;
  keys: ModelKey[];
  destroyed: string[];
  /** What was done and answered ok, how often; by what the test must have tried. */
  done: Map<string, number>;
}

const note = ({ done }: Pick<Model, 'done'>, what: string): void => void done.set(what, (done.get(what) ?? 0) + 1);

interface Real {
  folder: TempFolder;
  agent: ClockedAgent;
}

type State = 'Enabled' | 'Disabled' | 'PendingDeletion' | 'PendingImport';
function stateOf(key: ModelKey): State {
  if (key.windowEnd !== undefined) return 'PendingDeletion';
  if (key.material === 'gone') return 'PendingImport';
  return key.disabled ? 'Disabled' : 'Enabled';
}

const wallOf = (model: Model): number => startMs + model.real + model.wrongBy;
const isBelieved = (model: Model): boolean => model.wrongBy === model.believedWrongBy;

/** A new version that is used from now on. */
function rotate(key: ModelKey, model: Model): void {
  key.versions += 1;
  key.primary = key.versions - 1;
  key.lastRotation = wallOf(model);
}

/** What time alone does while the agent is unlocked. */
function letTimeWork(model: Model): void {
  if (model.locked) return;
  const isOver = ({ windowEnd = Number.POSITIVE_INFINITY }: ModelKey): boolean => windowEnd <= model.running && isBelieved(model);
  model.destroyed.push(...model.keys.filter(isOver).map(({ keyId }) => keyId));
  for (const _ of model.keys.filter(isOver)) note(model, 'destruction');
  model.keys = model.keys.filter(({ keyId }) => !model.destroyed.includes(keyId));
  for (const key of model.keys) {
    if (isBelieved(model)) key.rotatedUnbelieved = false;
    if (key.intervalMs !== undefined && isBelieved(model) && key.lastRotation > wallOf(model) + hourMs) key.lastRotation = wallOf(model);
    if (key.intervalMs !== undefined && stateOf(key) === 'Enabled' && key.lastRotation + key.intervalMs <= wallOf(model) && !key.rotatedUnbelieved) {
      rotate(key, model);
      key.rotatedUnbelieved = !isBelieved(model);
      note(model, 'rotation by time');
    }
  }
}

async function outcome(work: Promise<unknown>): Promise<'ok' | ErrorCode> {
  try {
    await work;
    return 'ok';
  } catch (error) {
    if (isAgentError(error)) return error.code;
    throw error;
  }
}

/** The agent must come to be what the model is. */
async function compare(model: Model, { agent }: Real): Promise<void> {
  const { kms } = agent;
  letTimeWork(model);
  if (model.locked) {
    expect(await outcome(kms.listKeys())).toBe('ERR_AGENT_LOCKED');
    return;
  }
  const believes = (): boolean => agent.log.match(/wall clock (?:jumped|can be believed)/g)?.at(-1) !== 'wall clock jumped';
  await expect.poll(believes, { interval: 10, timeout: 20_000 }).toBe(isBelieved(model)); // a clock that is set right before anybody looked was never wrong
  const time = (ms: number): string => new Date(ms).toISOString();
  const expected = model.keys.map((key) => [key.keyId, stateOf(key), key.versions, time(key.lastRotation)] as const).sort(([a], [b]) => (a < b ? -1 : 1));
  const read = async (): Promise<unknown> =>
    (await kms.listKeys({ limit: 1000 })).keys.map((key) => [key.keyId, key.keyState, key.keyVersionCount, key.rotation.lastRotationTime]);
  await expect.poll(read, { interval: 10, timeout: 20_000 }).toEqual(expected);
  for (const { keyId, windowEnd } of model.keys.filter((key) => key.windowEnd !== undefined)) {
    const shown = Date.parse((await kms.describeKey({ keyId })).deletionTime ?? '');
    expect(Math.abs(shown - (wallOf(model) + (windowEnd ?? 0) - model.running))).toBeLessThanOrEqual(hourMs);
  }
  for (const keyId of model.destroyed.slice(-2)) expect(await outcome(kms.describeKey({ keyId }))).toBe('ERR_KEY_NOT_FOUND');
}

class Step implements fc.AsyncCommand<Model, Real> {
  readonly name: string;
  readonly #pick: number;
  readonly #act: (model: Model, real: Real, key: ModelKey) => Promise<void>;
  readonly needsKey: boolean;

  constructor(name: string, pick: number, needsKey: boolean, act: (model: Model, real: Real, key: ModelKey) => Promise<void>) {
    this.name = name;
    this.#pick = pick;
    this.needsKey = needsKey;
    this.#act = act;
  }

  check(model: Readonly<Model>): boolean {
    return !this.needsKey || (model.keys.length > 0 && !model.locked);
  }

  async run(model: Model, real: Real): Promise<void> {
    note(model, 'step');
    const key = model.keys[this.#pick % Math.max(model.keys.length, 1)];
    await this.#act(model, real, key ?? newKey('', model));
    await compare(model, real);
  }

  toString(): string {
    return `${this.name}(${this.#pick})`;
  }
}

const refusals: Record<State, 'ok' | ErrorCode> = {
  Enabled: 'ok',
  Disabled: 'ERR_KEY_DISABLED',
  PendingDeletion: 'ERR_KEY_PENDING_DELETION',
  PendingImport: 'ERR_KEY_PENDING_IMPORT',
};

/** A step with a key: what the rules answer, and what changes when they say ok. */
const withKey =
  (
    name: string,
    call: (real: Real, key: ModelKey) => Promise<unknown>,
    rule: (key: ModelKey) => 'ok' | ErrorCode,
    change: (key: ModelKey, model: Model) => void,
  ) =>
  (pick: number): Step =>
    new Step(name, pick, true, async (model, real, key) => {
      const expected = rule(key);
      expect(await outcome(call(real, key))).toBe(expected);
      if (expected !== 'ok') return;
      note(model, key.disabled ? `${name} of a disabled key` : name);
      change(key, model);
    });

const unlessPending = (key: ModelKey): 'ok' | ErrorCode => (key.windowEnd === undefined ? 'ok' : 'ERR_STATE_CONFLICT');
const alive = (key: ModelKey): 'ok' | ErrorCode => (stateOf(key) === 'PendingImport' ? 'ERR_STATE_CONFLICT' : unlessPending(key));
const forGenerated = (key: ModelKey): 'ok' | ErrorCode => (key.material === undefined ? refusals[stateOf(key)] : 'ERR_UNSUPPORTED_OPERATION');
const forImported = (key: ModelKey, verdict: 'ok' | ErrorCode): 'ok' | ErrorCode => (key.material === undefined ? 'ERR_UNSUPPORTED_OPERATION' : verdict);

function newKey(keyId: string, model: Model): ModelKey {
  return {
    keyId,
    disabled: false,
    protected: false,
    versions: 1,
    primary: 0,
    used: new Set(),
    lastRotation: wallOf(model),
    blobs: [],
    raw: [],
    rotatedUnbelieved: false,
  };
}

/** The wall clock is set. */
async function setWall(model: Model, { agent }: Real, wrongBy: number): Promise<void> {
  await agent.set({ wallMs: agent.now.wallMs + wrongBy - model.wrongBy });
  model.wrongBy = wrongBy;
}

/** Which keys were rotated by a wrong clock is forgotten with the keys. */
function forgetRotations(model: Model): void {
  for (const key of model.keys) key.rotatedUnbelieved = false;
}

/** Locked or not, the agent ends by a signal and comes back locked; then it is unlocked, or not. */
async function restart(model: Model, real: Real, signal: NodeJS.Signals): Promise<void> {
  const from = real.agent.now;
  await real.agent.end(signal);
  real.agent = await ClockedAgent.start(real.folder, {}, { from });
  model.locked = false;
  forgetRotations(model);
}

/** Old ciphertexts open for ever, unless the key may not be used. */
async function decryptAll(model: Model, { agent: { kms } }: Real, key: ModelKey): Promise<void> {
  const openings = [
    ...key.blobs.map((ciphertextBlob) => () => kms.advanceDecrypt({ ciphertextBlob })),
    ...key.raw.map(
      ({ ciphertextBlob, iv, keyVersionId }) =>
        () =>
          kms.decrypt({ keyId: key.keyId, keyVersionId, ciphertextBlob, ...(iv ? { iv } : {}) }),
    ),
  ];
  for (const open of openings) {
    const opening = open();
    expect(await outcome(opening)).toBe(refusals[stateOf(key)]);
    if (stateOf(key) !== 'Enabled') continue;
    expect((await opening).plaintext).toEqual(message);
    note(model, key.versions > 1 ? 'decrypt after a rotation' : 'decrypt');
  }
}

/** How each walk begins: with a key, one that rotates, and a default key whose material was imported. */
async function begin({ agent: { kms } }: Real, model: Model): Promise<void> {
  for (const rotation of [{}, { rotationInterval: '7d' }]) {
    const { keyId } = await kms.createKey(rotation);
    model.keys.push({ ...newKey(keyId, model), ...('rotationInterval' in rotation ? { intervalMs: 7 * dayMs } : {}) });
  }
  const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
  await importMaterial(kms, keyId, material);
  model.keys.push({ ...newKey(keyId, model), material: 'there' });
}

/** How each walk ends: everything that was ever encrypted is opened. */
async function finish(real: Real, model: Model): Promise<void> {
  if (model.locked) await real.agent.kms.unlock({ passphrase });
  model.locked = false;
  await compare(model, real);
  for (const key of model.keys) await decryptAll(model, real, key);
}

const steps: ((pick: number) => Step)[] = [
  (pick) =>
    new Step('create', pick, false, async (model, { agent }) => {
      const intervalMs = pick % 3 === 0 ? 7 * dayMs : undefined;
      const creation = agent.kms.createKey(intervalMs === undefined ? {} : { rotationInterval: '7d' });
      if (model.locked) return expect(await outcome(creation)).toBe('ERR_AGENT_LOCKED');
      const { keyId } = await creation;
      model.keys.push({ ...newKey(keyId, model), ...(intervalMs === undefined ? {} : { intervalMs }) });
    }),
  (pick) =>
    new Step('create the default key', pick, false, async (model, { agent }) => {
      const creation = agent.kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
      if (model.locked) return expect(await outcome(creation)).toBe('ERR_AGENT_LOCKED');
      if (model.keys.some(({ material }) => material !== undefined)) return expect(await outcome(creation)).toBe('ERR_ALREADY_EXISTS');
      model.keys.push({ ...newKey((await creation).keyId, model), material: 'gone' });
    }),
  withKey(
    'import',
    ({ agent }, { keyId }) => importMaterial(agent.kms, keyId, material),
    (key) => forImported(key, unlessPending(key)),
    (key) => {
      key.material = 'there';
    },
  ),
  withKey(
    'delete material',
    ({ agent }, { keyId }) => agent.kms.deleteKeyMaterial({ keyId }),
    (key) => forImported(key, key.protected ? 'ERR_DELETION_PROTECTED' : 'ok'),
    (key) => {
      key.material = 'gone';
    },
  ),
  withKey(
    'enable',
    ({ agent }, { keyId }) => agent.kms.enableKey({ keyId }),
    alive,
    (key) => {
      key.disabled = false;
    },
  ),
  withKey(
    'disable',
    ({ agent }, { keyId }) => agent.kms.disableKey({ keyId }),
    alive,
    (key) => {
      key.disabled = true;
    },
  ),
  withKey(
    'schedule',
    ({ agent }, { keyId }) => agent.kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 }),
    (key) => (unlessPending(key) === 'ok' && key.protected ? 'ERR_DELETION_PROTECTED' : unlessPending(key)),
    (key, model) => {
      key.windowEnd = model.running + 7 * dayMs;
    },
  ),
  withKey(
    'cancel',
    ({ agent }, { keyId }) => agent.kms.cancelKeyDeletion({ keyId }),
    (key) => (key.windowEnd === undefined ? 'ERR_STATE_CONFLICT' : 'ok'),
    (key) => {
      delete key.windowEnd;
    },
  ),
  withKey(
    'protect',
    ({ agent }, key) => agent.kms.setDeletionProtection({ keyId: key.keyId, enabled: !key.protected }),
    (key) => (key.windowEnd === undefined ? 'ok' : 'ERR_KEY_PENDING_DELETION'),
    (key) => {
      key.protected = !key.protected;
    },
  ),
  withKey('rotate', ({ agent }, { keyId }) => agent.kms.createKeyVersion({ keyId }), forGenerated, rotate),
  withKey(
    'stage',
    ({ agent }, { keyId }) => agent.kms.createKeyVersion({ keyId, setPrimary: false }),
    forGenerated,
    (key) => {
      key.versions += 1;
    },
  ),
  (pick) =>
    new Step('set primary', pick, true, async (model, { agent: { kms } }, key) => {
      const versions = await Array.fromAsync(kms.listAllKeyVersions({ keyId: key.keyId }));
      const index = pick % versions.length;
      const setting = kms.setPrimaryKeyVersion({ keyId: key.keyId, keyVersionId: versions[index]?.keyVersionId ?? '' });
      expect(await outcome(setting)).toBe(forGenerated(key));
      if (forGenerated(key) !== 'ok') return;
      if (index > key.primary && !key.used.has(index)) key.lastRotation = wallOf(model);
      key.primary = index;
    }),
  withKey(
    'rotation',
    ({ agent }, { keyId, intervalMs }) =>
      agent.kms.updateRotationPolicy(intervalMs === undefined ? { keyId, enabled: true, rotationInterval: '7d' } : { keyId, enabled: false }),
    forGenerated,
    (key) => {
      if (key.intervalMs === undefined) key.intervalMs = 7 * dayMs;
      else delete key.intervalMs;
    },
  ),
  (pick) =>
    new Step('encrypt', pick, true, async (model, { agent }, key) => {
      const sealing = agent.kms.advanceEncrypt({ keyId: key.keyId, plaintext: message });
      expect(await outcome(sealing)).toBe(refusals[stateOf(key)]);
      if (stateOf(key) !== 'Enabled') return;
      key.blobs.push((await sealing).ciphertextBlob);
      key.used.add(key.primary);
      note(model, key.versions > 1 ? 'encrypt after a rotation' : 'encrypt');
    }),
  (pick) =>
    new Step('encrypt raw', pick, true, async (model, { agent }, key) => {
      const sealing = agent.kms.encrypt({ keyId: key.keyId, plaintext: message });
      expect(await outcome(sealing)).toBe(refusals[stateOf(key)]);
      if (stateOf(key) !== 'Enabled') return;
      key.raw.push(await sealing);
      key.used.add(0); // raw operations use the initial version
      note(model, 'encrypt raw');
    }),
  (pick) => new Step('decrypt all', pick, true, async (model, real, key) => await decryptAll(model, real, key)),
  (pick) =>
    new Step('disable, schedule, cancel', pick, true, async (model, { agent: { kms } }, { keyId }) => {
      const key = model.keys.find((one) => one.keyId === keyId);
      if (!key || key.protected || stateOf(key) === 'PendingDeletion' || stateOf(key) === 'PendingImport') return;
      await kms.disableKey({ keyId });
      key.disabled = true;
      await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
      expect((await kms.cancelKeyDeletion({ keyId })).keyState).toBe('Disabled');
      note(model, 'disable, schedule, cancel');
    }),
  (pick) =>
    new Step('schedule, and wait', pick, true, async (model, { agent }, key) => {
      if (key.protected || key.windowEnd !== undefined || !isBelieved(model)) return;
      await agent.kms.scheduleKeyDeletion({ keyId: key.keyId, pendingWindowInDays: 7 });
      key.windowEnd = model.running + 7 * dayMs;
      await agent.advance(7 * dayMs);
      model.running += 7 * dayMs;
      model.real += 7 * dayMs;
    }),
  (pick) =>
    new Step('time', pick, false, async (model, { agent }) => {
      const days = (pick % 5) + 1;
      await agent.advance(days * dayMs);
      model.running += days * dayMs;
      model.real += days * dayMs;
    }),
  (pick) => new Step('set the clock', pick, false, (model, real) => setWall(model, real, ((pick % 7) - 3) * 5 * dayMs)),
  (pick) => new Step('put the clock right', pick, false, (model, real) => setWall(model, real, model.believedWrongBy)),
  (pick) =>
    new Step('confirm the clock', pick, false, async (model, { agent }) => {
      if (model.locked) return expect(await outcome(agent.kms.confirmClock())).toBe('ERR_AGENT_LOCKED');
      await agent.kms.confirmClock();
      model.believedWrongBy = model.wrongBy;
    }),
  (pick) =>
    new Step('start the machine anew', pick, false, async (model, real) => {
      if (model.locked || !isBelieved(model)) return; // what is believed then is the business of tests of its own
      const { wallMs, bootId } = real.agent.now;
      await real.agent.end();
      model.running += minuteMs;
      model.real += dayMs;
      real.agent = await ClockedAgent.start(real.folder, {}, { from: { wallMs: wallMs + dayMs, bootMs: minuteMs, bootId: `${bootId}'` } });
      forgetRotations(model);
    }),
  (pick) => new Step('restart', pick, false, (model, real) => restart(model, real, pick % 2 === 0 ? 'SIGTERM' : 'SIGKILL')),
  (pick) =>
    new Step('lock or unlock', pick, false, async (model, { agent }) => {
      if (model.locked) await agent.kms.unlock({ passphrase });
      else await agent.kms.lock();
      model.locked = !model.locked;
      forgetRotations(model);
    }),
];

/** What must have gone well, how often at least in the walks that are the default: else the walks show nothing. */
const least: Readonly<Record<string, number>> = {
  'disable, schedule, cancel': 8,
  destruction: 10,
  import: 3,
  'delete material': 2,
  enable: 5,
  'enable of a disabled key': 3,
  protect: 8,
  rotate: 5,
  stage: 5,
  'rotation by time': 10,
  'encrypt raw': 10,
  'encrypt after a rotation': 4,
  'decrypt after a rotation': 15,
};

/** How often a step is taken: those with a key, and time, more often than those with the clock and the agent. */
const weightOf = ({ name, needsKey }: Step): number => (name === 'time' ? 16 : name.startsWith('encrypt') || name === 'decrypt all' ? 8 : needsKey ? 4 : 1);

test(`random walks through the life of keys, ${runs} of them: the agent is what a small model says, restarts and kills included`, {
  timeout: 600_000,
}, async () => {
  const one = fc.nat(30);
  const done: Model['done'] = new Map();
  const weighted = steps.flatMap((make) => Array.from({ length: weightOf(make(0)) }, () => make));
  await fc.assert(
    fc.asyncProperty(
      fc.commands(
        weighted.map((make) => one.map(make)),
        { maxCommands: 100, size: 'max' },
      ),
      async (commands) => {
        using folder = new TempFolder();
        await makeVault(folder);
        const real: Real = { folder, agent: await ClockedAgent.start(folder) };
        const model: Model = { running: 0, real: 0, wrongBy: 0, believedWrongBy: 0, locked: false, keys: [], destroyed: [], done };
        try {
          await begin(real, model);
          await fc.asyncModelRun(() => ({ model, real }), commands);
          await finish(real, model);
        } finally {
          await real.agent.end();
        }
      },
    ),
    { numRuns: runs, endOnFailure: true },
  );
  console.log(`model: ${runs} walks; ${[...done].map(([what, count]) => `${what} ${count}`).join(', ')}`);
  const missing = Object.entries(least).filter(([what, count]) => (done.get(what) ?? 0) < (count * runs) / 25);
  expect(missing).toEqual([]);
});
