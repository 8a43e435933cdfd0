import { setImmediate, setTimeout } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import type { CommitAct } from './acts.ts';
import type { Creation } from './creation.ts';
import { deletionTimeOf, isCounted, isWindowOver } from './deletion.ts';
import { initialVersion, type Key, nextRotationTime, withoutFutureRotation } from './key.ts';
import type { Keyring, LifeClock } from './keyring.ts';
import type { ImportedMaterial } from './material.ts';
import type { TokenWork } from './token-work.ts';

/** Keys whose lastUsedTime is written at one look. */
const usageBatch = 500;

/** A reason that is told is not told again for so long: a token that comes and goes would fill the log. */
const sayAgainMs = 86_400_000;

/** Nothing but an expiry lies further ahead than the longest rotation interval; what does was noted by a clock that was wrong. */
const longestMs = 731 * 86_400_000;

/** What a scheduler works with. */
export interface SchedulerOptions {
  readonly keyring: Keyring;
  readonly creation: Creation;
  readonly material: ImportedMaterial;
  readonly tokenWork: TokenWork;
  readonly commitAct: CommitAct;
  /** Hears why what is due for a key cannot be done: once a day for each reason, whatever comes and goes, and however many keys wait for it. */
  readonly onFailure: (keyId: string, error: unknown) => void;
}

/** Material ends at a time of the calendar: there the wall clock is right to ask, if it can be believed. */
function isExpired(key: Key, now: number): boolean {
  return key.materialExpireTime !== undefined && key.materialExpireTime <= now && initialVersion(key).material.length > 0;
}

/** The key without what a wrong clock left in it; the same object where there is nothing. Only by a clock that can be believed: it would be wrong again. */
function correctTimes(key: Key, clock: LifeClock): Key {
  const now = clock.now();
  const rotated = nextRotationTime(key) === undefined ? key : withoutFutureRotation(key, now);
  if (rotated.deletionTime === undefined) return rotated;
  if (!isCounted(rotated, clock)) return { ...rotated, windowEnd: clock.runningMs() + Math.max(rotated.deletionTime - now, 0) };
  const deletionTime = deletionTimeOf(rotated, clock) ?? rotated.deletionTime;
  return deletionTime === rotated.deletionTime ? rotated : { ...rotated, deletionTime };
}

/** What time does to keys: rotation, destruction, expiry. What decides is the stored time against the clock at each look. */
export class Scheduler {
  readonly #options: SchedulerOptions;
  /** Keys whose material went since the file was last scrubbed. */
  #destroyed = 0;
  /** Keys for which something is due that could not be done, and why. */
  readonly #failing = new Map<string, string>();
  /** When each reason was last told, in milliseconds since the machine started. */
  readonly #said = new Map<string, number>();
  /** Keys that were rotated by a clock that could not be believed, since the unlock: each jump there and back would leave a version for good. */
  readonly #rotatedUnbelieved = new Set<string>();

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  /**
   * Does all that is due, and lets others have their turn after each act. A missed rotation happens once, however many were missed.
   * @param all - looks at keys that are not due as well: when the clock was set.
   * @param isStopped - ends the look early: a lock does not wait for thousands of rotations; what is left is due after the next unlock.
   * What failed is due again at the next look, and the others are tried. @throws AgentError `ERR_STORE_UNAVAILABLE`, `ERR_AUDIT_UNAVAILABLE`: then they are not.
   */
  async look(all: boolean, isStopped: () => boolean): Promise<void> {
    const { keyring, tokenWork, creation } = this.#options;
    try {
      await this.#lookAtAll(all, isStopped);
    } finally {
      if (this.#destroyed > 0) keyring.scrub(); // once for all of a look: it writes the whole log into the file
      this.#destroyed = 0;
    }
    if (isStopped()) return;
    await tokenWork.sweep();
    keyring.uses.write(usageBatch);
    creation.sweepTokens();
  }

  /** Codes of what keeps something that is due from being done, by key. */
  get failing(): ReadonlyMap<string, string> {
    return this.#failing;
  }

  async #lookAtAll(all: boolean, isStopped: () => boolean): Promise<void> {
    const { keyring } = this.#options;
    const now = keyring.clock.now();
    for (const keyId of this.#failing.keys()) if (!keyring.dueTimes.has(keyId)) this.#failing.delete(keyId);
    for (const [keyId, dueTime] of keyring.dueTimes) {
      if (isStopped()) return;
      if (!all && dueTime > now && dueTime <= now + longestMs) continue;
      const begun = performance.now();
      await this.#try(keyId);
      const tookMs = performance.now() - begun;
      await (tookMs < 1 ? setImmediate() : setTimeout(tookMs)); // half of the time is the others'
    }
  }

  /** Milliseconds until something is due, at most `maxMs`: no timer is trusted with more. What is due and suspended waits for `maxMs`. */
  nextLookMs(maxMs: number): number {
    const { keyring } = this.#options;
    const now = keyring.clock.now();
    let next = now + maxMs;
    for (const dueTime of keyring.dueTimes.values()) if (dueTime > now && dueTime < next) next = dueTime;
    return next - now;
  }

  /** Ids of keys that would be destroyed or lose their material now, were it not for a clock that cannot be believed. */
  waiting(): string[] {
    const { keyring } = this.#options;
    const now = keyring.clock.now();
    const due = [...keyring.dueTimes].filter(([, dueTime]) => dueTime <= now).map(([keyId]) => keyring.findKey(keyId));
    return due.filter((key) => key !== undefined && (isWindowOver(key, keyring.clock) || isExpired(key, now))).map((key) => key?.keyId ?? '');
  }

  /** Remembers what failed. @throws AgentError `ERR_STORE_UNAVAILABLE`, `ERR_AUDIT_UNAVAILABLE`: the others would fail alike, and each try leaves two records. */
  async #try(keyId: string): Promise<void> {
    try {
      await this.#look(keyId);
      this.#failing.delete(keyId);
    } catch (error) {
      if (isAgentError(error, 'ERR_STORE_UNAVAILABLE', 'ERR_AUDIT_UNAVAILABLE')) throw error;
      const why = isAgentError(error) ? error.code : 'ERR_INTERNAL';
      this.#failing.set(keyId, why);
      this.#say(why, keyId, error);
    }
  }

  #say(why: string, keyId: string, error: unknown): void {
    const now = this.#options.keyring.clock.sinceBoot();
    if (now - (this.#said.get(why) ?? Number.NEGATIVE_INFINITY) < sayAgainMs) return;
    this.#said.set(why, now);
    this.#options.onFailure(keyId, error);
  }

  async #look(keyId: string): Promise<void> {
    const { keyring } = this.#options;
    const { clock } = keyring;
    const key = keyring.findKey(keyId);
    if (!key) return;
    const now = clock.now();
    if (clock.isBelievable()) {
      if (isWindowOver(key, clock)) return await this.#destroy(key);
      if (isExpired(key, now)) return await this.#expire(key);
      const corrected = correctTimes(key, clock);
      if (corrected !== key) return keyring.commit({ keys: [corrected] });
    }
    const isDue = (nextRotationTime(key) ?? Number.POSITIVE_INFINITY) <= now;
    if (!isDue || keyring.stateOf(key) !== 'Enabled' || keyring.lifetimes.isOver(keyId)) return;
    if (!clock.isBelievable() && this.#rotatedUnbelieved.has(keyId)) return;
    await this.#options.creation.moveOn(key, 'rotate');
    if (!clock.isBelievable()) this.#rotatedUnbelieved.add(keyId);
  }

  async #expire(key: Key): Promise<void> {
    if (await this.#options.material.expire(key)) this.#destroyed += 1;
  }

  /** The end: material overwritten wherever the agent keeps it, aliases gone, and a tombstone so that the id never comes back. */
  async #destroy(key: Key): Promise<void> {
    const { keyring, tokenWork, commitAct } = this.#options;
    const { keyId } = key;
    const destroyed = [{ keyId, deletionTime: keyring.clock.now() }];
    commitAct({ act: 'destroy', keyId }, { destroyed, deletedAliases: keyring.aliases.namesOf(keyId), ...tokenWork.destroyIntents(key) });
    this.#destroyed += 1;
    await tokenWork.destroy(key);
  }
}
