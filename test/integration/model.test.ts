import { type ErrorCode, isAgentError, utf8 } from '@kms-agent/client';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Vault } from '../../daemon/src/vault/vault.ts';
import { passphrase, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, dayMs, startMs } from '../kit/clocked.ts';

/** How many walks; more by hand. */
const runs = Number(process.env['KMS_AGENT_MODEL_RUNS'] ?? 40);
const message = utf8('what is kept');

/** What a key must be like, by the rules and by nothing of the agent's code. */
interface ModelKey {
  keyId: string;
  disabled: boolean;
  protected: boolean;
  deletionTime?: number;
  versions: number;
  intervalMs?: number;
  lastRotation: number;
  blobs: Uint8Array[];
}

interface Model {
  now: number;
  locked: boolean;
  keys: ModelKey[];
  destroyed: string[];
  steps: number;
}

interface Real {
  folder: TempFolder;
  agent: ClockedAgent;
}

type State = 'Enabled' | 'Disabled' | 'PendingDeletion';
const stateOf = (key: ModelKey): State => (key.deletionTime === undefined ? (key.disabled ? 'Disabled' : 'Enabled') : 'PendingDeletion');

/** What time alone does while the agent is unlocked. */
function letTimeWork(model: Model): void {
  if (model.locked) return;
  model.destroyed.push(...model.keys.filter(({ deletionTime = Number.POSITIVE_INFINITY }) => deletionTime <= model.now).map(({ keyId }) => keyId));
  model.keys = model.keys.filter(({ keyId }) => !model.destroyed.includes(keyId));
  for (const key of model.keys) {
    if (key.intervalMs === undefined || stateOf(key) !== 'Enabled' || key.lastRotation + key.intervalMs > model.now) continue;
    key.versions += 1;
    key.lastRotation = model.now;
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
async function compare(model: Model, { agent: { kms } }: Real): Promise<void> {
  letTimeWork(model);
  if (model.locked) {
    expect(await outcome(kms.listKeys())).toBe('ERR_AGENT_LOCKED');
    return;
  }
  const expected = model.keys.map((key) => [key.keyId, stateOf(key), key.versions] as const).sort(([a], [b]) => (a < b ? -1 : 1));
  await expect
    .poll(async () => (await kms.listKeys({ limit: 1000 })).keys.map((key) => [key.keyId, key.keyState, key.keyVersionCount]), { interval: 10 })
    .toEqual(expected);
  for (const keyId of model.destroyed.slice(-2)) expect(await outcome(kms.describeKey({ keyId }))).toBe('ERR_KEY_NOT_FOUND');
}

class Step implements fc.AsyncCommand<Model, Real> {
  readonly name: string;
  readonly #pick: number;
  readonly #act: (model: Model, real: Real, key: ModelKey) => Promise<void>;
  readonly #needsKey: boolean;

  constructor(name: string, pick: number, needsKey: boolean, act: (model: Model, real: Real, key: ModelKey) => Promise<void>) {
    this.name = name;
    this.#pick = pick;
    this.#needsKey = needsKey;
    this.#act = act;
  }

  check(model: Readonly<Model>): boolean {
    return !this.#needsKey || (model.keys.length > 0 && !model.locked);
  }

  async run(model: Model, real: Real): Promise<void> {
    model.steps += 1;
    const key = model.keys[this.#pick % Math.max(model.keys.length, 1)];
    await this.#act(model, real, key ?? { keyId: '', disabled: false, protected: false, versions: 0, lastRotation: 0, blobs: [] });
    await compare(model, real);
  }

  toString(): string {
    return `${this.name}(${this.#pick})`;
  }
}

const refusals: Record<State, 'ok' | ErrorCode> = { Enabled: 'ok', Disabled: 'ERR_KEY_DISABLED', PendingDeletion: 'ERR_KEY_PENDING_DELETION' };

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
      if (expected === 'ok') change(key, model);
    });

const alive = (key: ModelKey): 'ok' | ErrorCode => (key.deletionTime === undefined ? 'ok' : 'ERR_STATE_CONFLICT');

/** Locked or not, the agent ends by a signal and comes back locked; then it is unlocked, or not. */
async function restart(model: Model, real: Real, signal: NodeJS.Signals): Promise<void> {
  const from = real.agent.now;
  await real.agent.end(signal);
  real.agent = await ClockedAgent.start(real.folder, {}, { from });
  model.locked = false;
}

const steps: ((pick: number) => Step)[] = [
  (pick) =>
    new Step('create', pick, false, async (model, { agent }) => {
      const intervalMs = pick % 3 === 0 ? 7 * dayMs : undefined;
      const creation = agent.kms.createKey(intervalMs === undefined ? {} : { rotationInterval: '7d' });
      if (model.locked) return expect(await outcome(creation)).toBe('ERR_AGENT_LOCKED');
      const { keyId } = await creation;
      model.keys.push({
        keyId,
        disabled: false,
        protected: false,
        versions: 1,
        lastRotation: model.now,
        blobs: [],
        ...(intervalMs === undefined ? {} : { intervalMs }),
      });
    }),
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
    (key) => (alive(key) === 'ok' && key.protected ? 'ERR_DELETION_PROTECTED' : alive(key)),
    (key, model) => {
      key.deletionTime = model.now + 7 * dayMs;
    },
  ),
  withKey(
    'cancel',
    ({ agent }, { keyId }) => agent.kms.cancelKeyDeletion({ keyId }),
    (key) => (key.deletionTime === undefined ? 'ERR_STATE_CONFLICT' : 'ok'),
    (key) => {
      delete key.deletionTime;
    },
  ),
  withKey(
    'protect',
    ({ agent }, key) => agent.kms.setDeletionProtection({ keyId: key.keyId, enabled: !key.protected }),
    (key) => (key.deletionTime === undefined ? 'ok' : 'ERR_KEY_PENDING_DELETION'),
    (key) => {
      key.protected = !key.protected;
    },
  ),
  withKey(
    'rotate',
    ({ agent }, { keyId }) => agent.kms.createKeyVersion({ keyId }),
    (key) => refusals[stateOf(key)],
    (key, model) => {
      key.versions += 1;
      key.lastRotation = model.now;
    },
  ),
  withKey(
    'rotation',
    ({ agent }, { keyId, intervalMs }) =>
      agent.kms.updateRotationPolicy(intervalMs === undefined ? { keyId, enabled: true, rotationInterval: '7d' } : { keyId, enabled: false }),
    (key) => refusals[stateOf(key)],
    (key) => {
      if (key.intervalMs === undefined) key.intervalMs = 7 * dayMs;
      else delete key.intervalMs;
    },
  ),
  (pick) =>
    new Step('encrypt', pick, true, async (_model, { agent }, key) => {
      const sealing = agent.kms.advanceEncrypt({ keyId: key.keyId, plaintext: message });
      expect(await outcome(sealing)).toBe(refusals[stateOf(key)]);
      if (stateOf(key) === 'Enabled') key.blobs.push((await sealing).ciphertextBlob);
    }),
  (pick) =>
    new Step('decrypt all', pick, true, async (_model, { agent }, key) => {
      for (const ciphertextBlob of key.blobs) {
        const opening = agent.kms.advanceDecrypt({ ciphertextBlob });
        expect(await outcome(opening)).toBe(refusals[stateOf(key)]);
        if (stateOf(key) === 'Enabled') expect((await opening).plaintext).toEqual(message);
      }
    }),
  (pick) =>
    new Step('time', pick, false, async (model, { agent }) => {
      const days = (pick % 5) + 1;
      await agent.advance(days * dayMs);
      model.now += days * dayMs;
    }),
  (pick) => new Step('restart', pick, false, (model, real) => restart(model, real, pick % 2 === 0 ? 'SIGTERM' : 'SIGKILL')),
  (pick) =>
    new Step('lock or unlock', pick, false, async (model, { agent }) => {
      if (model.locked) await agent.kms.unlock({ passphrase });
      else await agent.kms.lock();
      model.locked = !model.locked;
    }),
];

test(`random walks through the life of keys, ${runs} of them: the agent is what a small model says, restarts and kills included`, {
  timeout: 600_000,
}, async () => {
  const one = fc.nat(30);
  let walked = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.commands(
        steps.map((make) => one.map(make)),
        { maxCommands: 40, size: 'max' },
      ),
      async (commands) => {
        using folder = new TempFolder();
        const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
        const { vault } = await Vault.create({ dataDir: folder.join('vault'), clock: () => startMs, argon2Cost, slots: [{ type: 'passphrase', passphrase }] });
        vault.close();
        const real: Real = { folder, agent: await ClockedAgent.start(folder) };
        const model: Model = { now: startMs, locked: false, keys: [], destroyed: [], steps: 0 };
        try {
          await fc.asyncModelRun(() => ({ model, real }), commands);
        } finally {
          walked += model.steps;
          await real.agent.end();
        }
      },
    ),
    { numRuns: runs, endOnFailure: true },
  );
  console.log(`model: ${runs} walks, ${walked} steps`);
  expect(walked).toBeGreaterThan(runs);
});
