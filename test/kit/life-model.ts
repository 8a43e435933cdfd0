import { type ErrorCode, isAgentError, utf8 } from '@kms-agent/client';
import { expect } from 'vitest';
import type { TempFolder } from './agent.ts';
import { type ClockedAgent, dayMs, hourMs, startMs } from './clocked.ts';

/** What every blob of a walk says. */
export const message = utf8('what is kept');

/** What a raw encryption gave. */
export interface RawBlob {
  readonly ciphertextBlob: Uint8Array;
  readonly iv: Uint8Array;
  readonly keyVersionId: string;
}

/** What a key must be like, by the rules and by nothing of the agent's code. */
export interface ModelKey {
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
  /** It was rotated by a clock that cannot be believed: not again by that one. */
  rotatedUnbelieved?: boolean;
  lastRotation: number;
  tags: Record<string, string>;
  blobs: Uint8Array[];
  raw: RawBlob[];
  /** Of the default key, which takes imported material: what it has. */
  material?: 'there' | 'gone';
  /** When that ends, on the wall clock. */
  expireTime?: number;
}

/** What the agent must be like. */
export interface Model {
  /** Milliseconds that the machine was on. */
  running: number;
  /** Milliseconds that went by, whether it was on or off. */
  real: number;
  /** By how much the wall clock is wrong, and by how much it may be without anybody knowing. */
  wrongBy: number;
  believedWrongBy: number;
  locked: boolean;
  keys: ModelKey[];
  aliases: Map<string, string>;
  destroyed: string[];
  /** Blobs of keys that are no more. */
  lost: Uint8Array[];
  /** How often each thing happened, whatever was refused left out. */
  done: Map<string, number>;
}

export interface Real {
  folder: TempFolder;
  agent: ClockedAgent;
}

export type Verdict = 'ok' | ErrorCode;
export type State = 'Enabled' | 'Disabled' | 'PendingDeletion' | 'PendingImport';

export const newModel = (done: Map<string, number>): Model => ({
  running: 0,
  real: 0,
  wrongBy: 0,
  believedWrongBy: 0,
  locked: false,
  keys: [],
  aliases: new Map(),
  destroyed: [],
  lost: [],
  done,
});

export function newKey(keyId: string, model: Model): ModelKey {
  return { keyId, disabled: false, protected: false, versions: 1, primary: 0, used: new Set(), lastRotation: wallOf(model), tags: {}, blobs: [], raw: [] };
}

export function stateOf(key: ModelKey): State {
  if (key.windowEnd !== undefined) return 'PendingDeletion';
  if (key.material === 'gone') return 'PendingImport';
  return key.disabled ? 'Disabled' : 'Enabled';
}

export const wallOf = (model: Model): number => startMs + model.real + model.wrongBy;
export const isBelieved = (model: Model): boolean => model.wrongBy === model.believedWrongBy;
export const note = ({ done }: Model, name: string): void => void done.set(name, (done.get(name) ?? 0) + 1);

/** A new version that is used from now on. */
export function rotate(key: ModelKey, model: Model): void {
  key.versions += 1;
  key.primary = key.versions - 1;
  key.lastRotation = wallOf(model);
}

/** The material is there no more, and its time with it. */
export function loseMaterial(key: ModelKey): void {
  key.material = 'gone';
  delete key.expireTime;
}

function destroy(key: ModelKey, model: Model): void {
  note(model, 'destroyed');
  model.destroyed.push(key.keyId);
  model.lost.push(...key.blobs);
  model.keys = model.keys.filter((other) => other !== key);
  for (const [name, keyId] of model.aliases) if (keyId === key.keyId) model.aliases.delete(name);
}

/** Which keys were rotated by a wrong clock is forgotten with the keys. */
export function forgetRotations(model: Model): void {
  for (const key of model.keys) key.rotatedUnbelieved = false;
}

function letRotate(key: ModelKey, model: Model): void {
  if (key.intervalMs === undefined) return;
  if (isBelieved(model) && key.lastRotation > wallOf(model) + hourMs) key.lastRotation = wallOf(model);
  if (stateOf(key) !== 'Enabled' || (!isBelieved(model) && key.rotatedUnbelieved) || key.lastRotation + key.intervalMs > wallOf(model)) return;
  rotate(key, model);
  if (!isBelieved(model)) key.rotatedUnbelieved = true;
  note(model, 'rotated by time');
}

/** What time alone does while the agent is unlocked. */
function letTimeWork(model: Model): void {
  if (model.locked) return;
  const { keys } = model; // destroy makes another list
  for (const key of keys) {
    if (isBelieved(model) && (key.windowEnd ?? Number.POSITIVE_INFINITY) <= model.running) destroy(key, model);
    else {
      if (isBelieved(model) && (key.expireTime ?? Number.POSITIVE_INFINITY) <= wallOf(model)) {
        loseMaterial(key);
        note(model, 'expired');
      }
      letRotate(key, model);
    }
  }
}

export async function outcome(work: Promise<unknown>): Promise<Verdict> {
  try {
    await work;
    return 'ok';
  } catch (error) {
    if (isAgentError(error)) return error.code;
    throw error;
  }
}

/** What listKeys must answer. */
function expectedKeys(model: Model): unknown[] {
  const time = (ms: number): string => new Date(ms).toISOString();
  return model.keys
    .map((key) => {
      const expires = key.expireTime === undefined ? undefined : time(key.expireTime);
      return [key.keyId, stateOf(key), key.versions, time(key.lastRotation), key.protected, expires, key.tags] as const;
    })
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** The agent must come to be what the model is. */
export async function compare(model: Model, { agent }: Real): Promise<void> {
  const { kms } = agent;
  letTimeWork(model);
  if (model.locked) {
    expect(await outcome(kms.listKeys())).toBe('ERR_AGENT_LOCKED');
    return;
  }
  const believes = (): boolean => agent.log.match(/wall clock (?:jumped|can be believed)/g)?.at(-1) !== 'wall clock jumped';
  await expect.poll(believes, { interval: 10, timeout: 20_000 }).toBe(isBelieved(model)); // a clock that is set right before anybody looked was never wrong
  const read = async (): Promise<unknown> =>
    (await kms.listKeys({ limit: 1000 })).keys.map((key) => {
      const { keyId, keyState, keyVersionCount, rotation, deletionProtection, materialExpireTime, tags } = key;
      return [keyId, keyState, keyVersionCount, rotation.lastRotationTime, deletionProtection.enabled, materialExpireTime, tags];
    });
  await expect.poll(read, { interval: 10, timeout: 20_000 }).toEqual(expectedKeys(model));
  const { aliases } = await kms.listAliases({ limit: 1000 });
  expect(new Map(aliases.map(({ aliasName, keyId }) => [aliasName, keyId]))).toEqual(model.aliases);
  for (const { keyId, windowEnd } of model.keys.filter((key) => key.windowEnd !== undefined)) {
    const shown = Date.parse((await kms.describeKey({ keyId })).deletionTime ?? '');
    expect(Math.abs(shown - (wallOf(model) + (windowEnd ?? 0) - model.running))).toBeLessThanOrEqual(hourMs);
  }
  for (const keyId of model.destroyed.slice(-2)) expect(await outcome(kms.describeKey({ keyId }))).toBe('ERR_KEY_NOT_FOUND');
}

/** Time passes. */
export async function letPass(model: Model, { agent }: Real, days: number): Promise<void> {
  await agent.advance(days * dayMs);
  model.running += days * dayMs;
  model.real += days * dayMs;
}
