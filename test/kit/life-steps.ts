import { expect } from 'vitest';
import { dayMs } from './clocked.ts';
import {
  compare,
  loseMaterial,
  type Model,
  type ModelKey,
  message,
  newKey,
  note,
  outcome,
  type Real,
  rotate,
  type State,
  stateOf,
  type Verdict,
  wallOf,
} from './life-model.ts';
import { importMaterial } from './material.ts';

/** What is imported; never anything else. */
export const material = new Uint8Array(32).fill(7);

/** One thing that is done, with the key that `pick` chooses where it needs one. */
export interface Step {
  readonly name: string;
  readonly needsKey: boolean;
  /** What the rules say of it now; ok if it is done. What they refuse changes nothing. */
  readonly act: (model: Model, real: Real, key: ModelKey, pick: number) => Promise<Verdict>;
}

/** Does a step, and compares. One that needs a key and finds none is left out. */
export async function doStep({ name, needsKey, act }: Step, pick: number, model: Model, real: Real): Promise<void> {
  const key = model.keys[pick % Math.max(model.keys.length, 1)];
  if (needsKey && (!key || model.locked)) return;
  if ((await act(model, real, key ?? newKey('', model), pick)) === 'ok') note(model, name);
  await compare(model, real);
}

const refusals: Record<State, Verdict> = {
  Enabled: 'ok',
  Disabled: 'ERR_KEY_DISABLED',
  PendingDeletion: 'ERR_KEY_PENDING_DELETION',
  PendingImport: 'ERR_KEY_PENDING_IMPORT',
};

/** A step with a key: what the rules answer, and what changes when they say ok. */
const withKey = (
  name: string,
  call: (real: Real, key: ModelKey, pick: number, model: Model) => Promise<unknown>,
  rule: (key: ModelKey, model: Model, pick: number) => Verdict,
  change: (key: ModelKey, model: Model, pick: number) => void,
): Step => ({
  name,
  needsKey: true,
  act: async (model, real, key, pick) => {
    const expected = rule(key, model, pick);
    expect(await outcome(call(real, key, pick, model)), name).toBe(expected);
    if (expected === 'ok') change(key, model, pick);
    return expected;
  },
});

const unlessPending = (key: ModelKey, verdict: Verdict = 'ERR_STATE_CONFLICT'): Verdict => (key.windowEnd === undefined ? 'ok' : verdict);
const alive = (key: ModelKey): Verdict => (stateOf(key) === 'PendingImport' ? 'ERR_STATE_CONFLICT' : unlessPending(key));
const forGenerated = (key: ModelKey): Verdict => (key.material === undefined ? refusals[stateOf(key)] : 'ERR_UNSUPPORTED_OPERATION');
const forImported = (key: ModelKey, verdict: Verdict): Verdict => (key.material === undefined ? 'ERR_UNSUPPORTED_OPERATION' : verdict);
const aliasOf = (pick: number): string => `alias/walk/${pick % 3}`;
const expiryOf = (model: Model, pick: number): number => wallOf(model) + ((pick % 9) + 1) * dayMs;

/** Protection is also one against an end of what is there that is set, or moved ahead. */
function mayExpire(key: ModelKey, expireTime: number): Verdict {
  if (unlessPending(key) !== 'ok') return 'ERR_STATE_CONFLICT';
  return key.protected && key.material === 'there' && expireTime < (key.expireTime ?? Number.POSITIVE_INFINITY) ? 'ERR_DELETION_PROTECTED' : 'ok';
}

export const keySteps = {
  import: withKey(
    'import',
    ({ agent }, { keyId }) => importMaterial(agent.kms, keyId, material),
    (key) => forImported(key, unlessPending(key)),
    (key) => {
      key.material = 'there';
      delete key.expireTime;
    },
  ),
  importForDays: withKey(
    'import for days',
    ({ agent }, { keyId }, pick, model) => importMaterial(agent.kms, keyId, material, { materialExpireTime: new Date(expiryOf(model, pick)).toISOString() }),
    (key, model, pick) => forImported(key, mayExpire(key, expiryOf(model, pick))),
    (key, model, pick) => {
      key.material = 'there';
      key.expireTime = expiryOf(model, pick);
    },
  ),
  deleteMaterial: withKey(
    'delete material',
    ({ agent }, { keyId }) => agent.kms.deleteKeyMaterial({ keyId }),
    (key) => forImported(key, key.protected ? 'ERR_DELETION_PROTECTED' : 'ok'),
    loseMaterial,
  ),
  enable: withKey(
    'enable',
    ({ agent }, { keyId }) => agent.kms.enableKey({ keyId }),
    alive,
    (key) => {
      key.disabled = false;
    },
  ),
  disable: withKey(
    'disable',
    ({ agent }, { keyId }) => agent.kms.disableKey({ keyId }),
    alive,
    (key) => {
      key.disabled = true;
    },
  ),
  schedule: withKey(
    'schedule',
    ({ agent }, { keyId }) => agent.kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 }),
    (key) => (unlessPending(key) === 'ok' && key.protected ? 'ERR_DELETION_PROTECTED' : unlessPending(key)),
    (key, model) => {
      key.windowEnd = model.running + 7 * dayMs;
    },
  ),
  cancel: withKey(
    'cancel',
    ({ agent }, { keyId }) => agent.kms.cancelKeyDeletion({ keyId }),
    (key) => (key.windowEnd === undefined ? 'ERR_STATE_CONFLICT' : 'ok'),
    (key, model) => {
      delete key.windowEnd;
      if (stateOf(key) !== 'Enabled') note(model, `cancel back to ${stateOf(key)}`);
    },
  ),
  protect: withKey(
    'protect',
    ({ agent }, key) => agent.kms.setDeletionProtection({ keyId: key.keyId, enabled: !key.protected }),
    (key) => unlessPending(key, 'ERR_KEY_PENDING_DELETION'),
    (key) => {
      key.protected = !key.protected;
    },
  ),
  tag: withKey(
    'tag',
    ({ agent }, { keyId }, pick) => agent.kms.tagKey({ keyId, tags: { [`t${pick % 3}`]: `v${pick}` } }),
    (key) => unlessPending(key, 'ERR_KEY_PENDING_DELETION'),
    (key, _model, pick) => {
      key.tags[`t${pick % 3}`] = `v${pick}`;
    },
  ),
  untag: withKey(
    'untag',
    ({ agent }, { keyId }, pick) => agent.kms.untagKey({ keyId, tagKeys: [`t${pick % 3}`] }),
    (key) => unlessPending(key, 'ERR_KEY_PENDING_DELETION'),
    (key, _model, pick) => {
      delete key.tags[`t${pick % 3}`];
    },
  ),
  createAlias: withKey(
    'create alias',
    ({ agent }, { keyId }, pick) => agent.kms.createAlias({ keyId, aliasName: aliasOf(pick) }),
    (key, { aliases }, pick) => (unlessPending(key) === 'ok' && aliases.has(aliasOf(pick)) ? 'ERR_ALREADY_EXISTS' : unlessPending(key)),
    ({ keyId }, { aliases }, pick) => aliases.set(aliasOf(pick), keyId),
  ),
  moveAlias: withKey(
    'move alias',
    ({ agent }, { keyId }, pick) => agent.kms.updateAlias({ keyId, aliasName: aliasOf(pick) }),
    (key, { aliases }, pick) => (aliases.has(aliasOf(pick)) ? unlessPending(key) : 'ERR_ALIAS_NOT_FOUND'),
    ({ keyId }, { aliases }, pick) => aliases.set(aliasOf(pick), keyId),
  ),
  deleteAlias: withKey(
    'delete alias',
    ({ agent }, _key, pick) => agent.kms.deleteAlias({ aliasName: aliasOf(pick) }),
    (_key, { aliases }, pick) => (aliases.has(aliasOf(pick)) ? 'ok' : 'ERR_ALIAS_NOT_FOUND'),
    (_key, { aliases }, pick) => aliases.delete(aliasOf(pick)),
  ),
  rotate: withKey('rotate', ({ agent }, { keyId }) => agent.kms.createKeyVersion({ keyId }), forGenerated, rotate),
  stage: withKey(
    'stage',
    ({ agent }, { keyId }) => agent.kms.createKeyVersion({ keyId, setPrimary: false }),
    forGenerated,
    (key) => {
      key.versions += 1;
    },
  ),
  rotation: withKey(
    'rotation',
    ({ agent }, { keyId, intervalMs }) =>
      agent.kms.updateRotationPolicy(intervalMs === undefined ? { keyId, enabled: true, rotationInterval: '7d' } : { keyId, enabled: false }),
    forGenerated,
    (key) => {
      if (key.intervalMs === undefined) key.intervalMs = 7 * dayMs;
      else delete key.intervalMs;
    },
  ),
  setPrimary: {
    name: 'set primary',
    needsKey: true,
    act: async (model, { agent: { kms } }, key, pick) => {
      const versions = await Array.fromAsync(kms.listAllKeyVersions({ keyId: key.keyId }));
      const index = pick % versions.length;
      expect(await outcome(kms.setPrimaryKeyVersion({ keyId: key.keyId, keyVersionId: versions[index]?.keyVersionId ?? '' }))).toBe(forGenerated(key));
      if (forGenerated(key) !== 'ok') return forGenerated(key);
      if (index > key.primary && !key.used.has(index)) key.lastRotation = wallOf(model);
      key.primary = index;
      return 'ok';
    },
  },
  encrypt: {
    name: 'encrypt',
    needsKey: true,
    act: async (_model, { agent }, key) => {
      const sealing = agent.kms.advanceEncrypt({ keyId: key.keyId, plaintext: message });
      const expected = refusals[stateOf(key)];
      expect(await outcome(sealing)).toBe(expected);
      if (expected !== 'ok') return expected;
      key.blobs.push((await sealing).ciphertextBlob);
      key.used.add(key.primary);
      return 'ok';
    },
  },
  encryptRaw: {
    name: 'encrypt raw',
    needsKey: true,
    act: async (_model, { agent: { kms } }, key, pick) => {
      const versions = await Array.fromAsync(kms.listAllKeyVersions({ keyId: key.keyId }));
      const index = pick % 2 === 0 ? 0 : pick % versions.length;
      const named = pick % 2 === 0 ? {} : { keyVersionId: versions[index]?.keyVersionId ?? '' };
      const sealing = kms.encrypt({ keyId: key.keyId, plaintext: message, ...named });
      const expected = refusals[stateOf(key)];
      expect(await outcome(sealing)).toBe(expected);
      if (expected !== 'ok') return expected;
      const { ciphertextBlob, iv = new Uint8Array(), keyVersionId } = await sealing;
      expect(keyVersionId).toBe(versions[index]?.keyVersionId);
      key.raw.push({ ciphertextBlob, iv, keyVersionId });
      key.used.add(index);
      return 'ok';
    },
  },
  open: { name: 'open all', needsKey: true, act: async (model, real, key) => await openAll(model, real, key) },
} satisfies Record<string, Step>;

/** Opens what the key made, all of it, or sees all of it refused as its state says. */
export async function openAll(model: Model, { agent: { kms } }: Real, key: ModelKey): Promise<Verdict> {
  const expected = refusals[stateOf(key)];
  const { keyId } = key;
  const openings = [
    ...key.blobs.map((ciphertextBlob) => () => kms.advanceDecrypt({ ciphertextBlob })),
    ...key.raw.map((blob) => () => kms.decrypt({ keyId, ...blob })),
  ];
  for (const open of openings) {
    const opening = open();
    expect(await outcome(opening), 'open').toBe(expected);
    if (expected !== 'ok') continue;
    expect((await opening).plaintext).toEqual(message);
    note(model, key.versions > 1 ? 'opened after a rotation' : 'opened');
  }
  return expected;
}
