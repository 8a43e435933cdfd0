import { AgentError, durationSeconds, type KeyPolicy, type UpdateRotationPolicyParams } from '@kms-agent/protocol';
import { windowOf } from './deletion.ts';
import { findVersion, type Key, primaryVersion, withoutFutureRotation, withPolicy } from './key.ts';
import type { Keyring } from './keyring.ts';
import { isSymmetric, requireChangeable, requireGenerated, requireUnprotected, unsupported } from './rules.ts';
import type { KeyAct } from './state.ts';

const defaultWindowDays = 30;
const maxTags = 50;

/** What happens to a key between its making and its end. Checks run in this order: type and origin, state, deletion protection. */
export class Life {
  readonly #keyring: Keyring;

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  enable(key: Key): Key {
    requireChangeable(key);
    const enabled = this.#keyring.after(key, { event: 'enable' });
    return key.disabled ? this.#change(enabled) : key;
  }

  disable(key: Key): Key {
    requireChangeable(key);
    const disabled = this.#keyring.after(key, { event: 'disable' });
    return key.disabled ? key : this.#change(disabled);
  }

  /** @throws AgentError `ERR_STATE_CONFLICT`, `ERR_DELETION_PROTECTED`. */
  scheduleDeletion(key: Key, windowDays = defaultWindowDays): Key {
    requireChangeable(key);
    const scheduled = this.#keyring.after(key, { event: 'scheduleDeletion', window: windowOf(windowDays, this.#keyring.clock) });
    requireUnprotected(key);
    return this.#change(scheduled);
  }

  /** Back to the state before. @throws AgentError `ERR_STATE_CONFLICT`. */
  cancelDeletion(key: Key): Key {
    requireChangeable(key);
    return this.#change(this.#keyring.after(key, { event: 'cancelDeletion' }));
  }

  setDeletionProtection(key: Key, enabled: boolean, description?: string): Key {
    this.#require(key, 'protect');
    return this.#change({ ...key, deletionProtection: { enabled, ...(description === undefined ? {} : { description }) } });
  }

  setDescription(key: Key, description: string): Key {
    this.#require(key, 'describe');
    return this.#change({ ...key, description });
  }

  /** @throws AgentError `ERR_LIMIT_EXCEEDED` past 50 tags. */
  tag(key: Key, tags: Readonly<Record<string, string>>): Key {
    this.#require(key, 'describe');
    const all = { ...key.tags, ...tags };
    if (Object.keys(all).length > maxTags) throw new AgentError('ERR_LIMIT_EXCEEDED', { hint: `A key has at most ${maxTags} tags.` });
    return this.#change({ ...key, tags: all });
  }

  untag(key: Key, tagKeys: readonly string[]): Key {
    this.#require(key, 'describe');
    return this.#change({ ...key, tags: Object.fromEntries(Object.entries(key.tags).filter(([name]) => !tagKeys.includes(name))) });
  }

  /** Chooses the version that advance operations and sign use. A newer one that was never used is a rotation. */
  setPrimaryVersion(key: Key, keyVersionId: string): Key {
    requireGenerated(key);
    const chosen = findVersion(key, keyVersionId);
    this.#keyring.requireState(key, 'version');
    const isRotation = key.versions.indexOf(chosen) > key.versions.indexOf(primaryVersion(key)) && chosen.useCount === 0;
    return this.#change({ ...key, primaryKeyVersionId: keyVersionId, ...(isRotation ? { lastRotationTime: this.#keyring.clock.now() } : {}) });
  }

  /** Turns automatic rotation on or off; off keeps the interval. */
  setRotation(key: Key, { enabled, rotationInterval }: Pick<UpdateRotationPolicyParams, 'enabled' | 'rotationInterval'>): Key {
    const intervalMs = rotationInterval === undefined ? key.rotation.intervalMs : durationSeconds(rotationInterval) * 1000;
    if (!enabled && rotationInterval !== undefined)
      throw new AgentError('ERR_INVALID_PARAMS', { path: '/rotationInterval', reason: 'does not apply when rotation is turned off' });
    requireGenerated(key);
    if (!isSymmetric(key.keySpec)) throw unsupported('Only symmetric keys rotate by themselves; createKeyVersion rotates this one.');
    if (enabled && intervalMs === undefined)
      throw new AgentError('ERR_INVALID_PARAMS', { path: '/rotationInterval', reason: 'is required the first time that rotation is turned on' });
    this.#keyring.requireState(key, 'version');
    const { clock } = this.#keyring;
    const dated = enabled && clock.isBelievable() ? withoutFutureRotation(key, clock.now()) : key; // nothing looks at a key that does not rotate
    return this.#change({ ...dated, rotation: { enabled, ...(intervalMs === undefined ? {} : { intervalMs }) } });
  }

  /** Says who may do what; the key of a service takes one too, so that a renamed unit does not lose its data. Counts begin anew. */
  setPolicy(key: Key, policy: KeyPolicy): Key {
    this.#keyring.requireState(key, 'protect');
    return this.#change(withPolicy(key, policy));
  }

  #require(key: Key, act: KeyAct): void {
    requireChangeable(key);
    this.#keyring.requireState(key, act);
  }

  #change(key: Key): Key {
    this.#keyring.commit({ keys: [key] });
    return key;
  }
}
