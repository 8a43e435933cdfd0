import { setImmediate } from 'node:timers/promises';
import type { AgentAct } from './acts.ts';
import type { Creation } from './creation.ts';
import { initialVersion, type Key, nextRotationTime } from './key.ts';
import type { Keyring } from './keyring.ts';
import type { ImportedMaterial } from './material.ts';
import type { TokenWork } from './token-work.ts';

/** Keys whose lastUsedTime is written at one look. */
const usageBatch = 500;
/** A last rotation that lies so far ahead was noted by a clock that was wrong. */
const clockToleranceMs = 3_600_000;

/** Nothing but an expiry lies further ahead than the longest rotation interval; what does was noted by a clock that was wrong. */
const longestMs = 731 * 86_400_000;

/** What a scheduler works with. */
export interface SchedulerOptions {
  readonly keyring: Keyring;
  readonly creation: Creation;
  readonly material: ImportedMaterial;
  readonly tokenWork: TokenWork;
  /** Hears of each act of the agent's own, once it is done. */
  readonly onAct: (act: AgentAct) => void;
}

/** What time does to keys: rotation, destruction, expiry. What decides is the stored time against the clock at each look. */
export class Scheduler {
  readonly #options: SchedulerOptions;

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  /**
   * Does all that is due, and lets others have their turn after each act. A missed rotation happens once, however many were missed.
   * @param all - looks at keys that are not due as well: when the clock was set.
   * @param isStopped - ends the look early: a lock does not wait for thousands of rotations; what is left is due after the next unlock.
   * @throws AgentError of the first act that failed, after all others were tried; what failed is due again at the next look.
   */
  async look(all: boolean, isStopped: () => boolean): Promise<void> {
    const { keyring, tokenWork } = this.#options;
    const now = keyring.clock.now();
    const failures: unknown[] = [];
    for (const [keyId, dueTime] of keyring.dueTimes) {
      if (isStopped()) return;
      const key = all || dueTime <= now || dueTime > now + longestMs ? keyring.findKey(keyId) : undefined;
      if (!key) continue;
      await this.#look(key).catch((error: unknown) => failures.push(error));
      await setImmediate();
    }
    await tokenWork.sweep();
    keyring.writeUsage(usageBatch);
    if (failures.length > 0) throw failures[0];
  }

  /** Milliseconds until something is due, at most `maxMs`: no timer is trusted with more. What is due and suspended waits for `maxMs`. */
  nextLookMs(maxMs: number): number {
    const { keyring } = this.#options;
    const now = keyring.clock.now();
    let next = now + maxMs;
    for (const dueTime of keyring.dueTimes.values()) if (dueTime > now && dueTime < next) next = dueTime;
    return next - now;
  }

  async #look(key: Key): Promise<void> {
    const { clock } = this.#options.keyring;
    const now = clock.now();
    const isOver = (time: number | undefined): boolean => time !== undefined && time <= now && clock.isBelievable();
    if (isOver(key.deletionTime)) return await this.#destroy(key);
    if (isOver(key.materialExpireTime) && initialVersion(key).material.length > 0) return await this.#expire(key);
    if (key.lastRotationTime > now + clockToleranceMs) this.#options.keyring.commit({ keys: [{ ...key, lastRotationTime: now }] });
    else if ((nextRotationTime(key) ?? Number.POSITIVE_INFINITY) <= now && this.#options.keyring.stateOf(key) === 'Enabled') await this.#rotate(key);
  }

  async #rotate(key: Key): Promise<void> {
    const { keyVersionId } = await this.#options.creation.moveOn(key);
    this.#options.onAct({ act: 'rotate', keyId: key.keyId, keyVersionId });
  }

  async #expire(key: Key): Promise<void> {
    if (await this.#options.material.expire(key)) this.#options.onAct({ act: 'expire', keyId: key.keyId });
  }

  /** The end: material overwritten wherever the agent keeps it, aliases gone, and a tombstone so that the id never comes back. */
  async #destroy(key: Key): Promise<void> {
    const { keyring, tokenWork, onAct } = this.#options;
    const { keyId } = key;
    const destroyed = [{ keyId, deletionTime: keyring.clock.now() }];
    keyring.commit({ destroyed, deletedAliases: keyring.aliases.namesOf(keyId), ...tokenWork.destroyIntents(key) });
    await tokenWork.destroy(key);
    keyring.scrub();
    onAct({ act: 'destroy', keyId });
  }
}
