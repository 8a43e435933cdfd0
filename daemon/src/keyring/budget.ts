import { AgentError, isAgentError } from '@kms-agent/protocol';
import { initialVersion, isCountKnown, type Key, type KeyVersionEntry, maxKeyVersions, primaryVersion } from './key.ts';
import type { Keyring } from './keyring.ts';

/** How often one AES version may encrypt. */
export interface BudgetLimits {
  /** Messages for one version: 2^32 for AES-GCM with random IVs (NIST SP 800-38D section 8.3). */
  readonly maxUses: number;
  /** Uses that are counted in the vault ahead of time: one durable write for so many encryptions. */
  readonly blockSize: number;
}

/** Share of the limit that is kept back when advance operations move on: 2^20 of 2^32. */
const reserveShare = 4096;

/** From this share of the limit on, status and the log warn. */
const warnShare = 0.75;

/** What a budget works with. */
export interface BudgetOptions {
  readonly keyring: Keyring;
  readonly limits: BudgetLimits;
  /** Makes a new primary version of a key; the agent's own act. */
  readonly makeVersion: (key: Key) => Promise<void>;
  /** Hears once of a key that has used three quarters of what a version may encrypt. */
  readonly onNearlySpent: (keyId: string) => void;
}

/** Whether the key can have another version when one is full. */
const canMove = ({ origin, versions }: Key): boolean => origin === 'GENERATED' && versions.length < maxKeyVersions;

/** What to do about a version that is full. */
function adviceFor(key: Key): string {
  return canMove(key) ? 'advanceEncrypt moves on to a new one' : 'this key cannot have another; use a new key';
}

/** Counts encryptions, so that no version ever makes more than it may. */
export class Budget {
  readonly #keyring: Keyring;
  readonly #limits: BudgetLimits;
  readonly #moving = new Map<string, Promise<void>>();
  readonly #makeVersion: BudgetOptions['makeVersion'];
  readonly #onNearlySpent: BudgetOptions['onNearlySpent'];

  constructor({ keyring, limits, makeVersion, onNearlySpent }: BudgetOptions) {
    this.#keyring = keyring;
    this.#limits = limits;
    this.#makeVersion = makeVersion;
    this.#onNearlySpent = onNearlySpent;
  }

  /**
   * Counts one encryption; the vault hears of it a block ahead, so that a crash can only over-count.
   * @throws AgentError `ERR_LIMIT_EXCEEDED`; `ERR_STORE_UNAVAILABLE` when a new block cannot be reserved.
   */
  count(key: Key, version: KeyVersionEntry): void {
    const maxUses = this.#maxUsesOf(version);
    if (version.useCount >= maxUses)
      throw new AgentError('ERR_LIMIT_EXCEEDED', { hint: `This key version has encrypted as often as it may; ${adviceFor(key)}.` });
    if (version.useCount >= version.reservedUses) this.#reserve(key, version, Math.min(version.useCount + this.#limits.blockSize, maxUses));
    version.useCount += 1;
    if (version.useCount === Math.ceil(maxUses * warnShare)) this.#warn(key);
  }

  #warn({ keyId }: Key): void {
    this.#keyring.noteNearlySpent(keyId);
    this.#onNearlySpent(keyId);
  }

  /**
   * Messages that a version may encrypt. After the vault was put back, what was encrypted since the backup is not counted:
   * each time takes an equal share of the whole, so that as much as is left may have been used without a count.
   */
  #maxUsesOf({ restores }: KeyVersionEntry): number {
    const counted = this.#keyring.facts.restores;
    const since = counted >= restores ? counted - restores : counted; // facts that say less were lost and begun anew: all that they count came later
    return Math.floor(this.#limits.maxUses / (1 + since));
  }

  /**
   * Counts one encryption with the primary version, after a move to a new one if its budget is nearly spent or its count is not known.
   * What cannot move, because it was imported or has all the versions it may have, goes on to the limit.
   * @throws as count.
   */
  countPrimary(key: Key): KeyVersionEntry | Promise<KeyVersionEntry> {
    const newest = this.#keyring.keyById(key.keyId);
    if (!this.#mustMove(newest)) return this.#countPrimaryNow(newest);
    return (this.#moving.get(key.keyId) ?? this.#move(newest)).then(() => this.#countPrimaryNow(this.#keyring.keyById(key.keyId)));
  }

  /** Chosen and counted in one turn: what waits beside this one cannot spend it meanwhile. */
  #countPrimaryNow(key: Key): KeyVersionEntry {
    const version = primaryVersion(key);
    this.count(key, version);
    return version;
  }

  /** Whether raw operations can encrypt no more. */
  isSpent(key: Key): boolean {
    return this.#isFull(initialVersion(key));
  }

  /** Whether advance operations can encrypt no more. */
  isPrimarySpent(key: Key): boolean {
    return !canMove(key) && this.#isFull(primaryVersion(key));
  }

  #isFull(version: KeyVersionEntry): boolean {
    return version.useCount >= this.#maxUsesOf(version);
  }

  /** Ids of keys that were seen to have used three quarters of the budget of a version that still encrypts. */
  nearlySpent(): string[] {
    return (this.#keyring.facts.nearlySpent ?? []).filter((keyId) => {
      const key = this.#keyring.findKey(keyId);
      return key && [initialVersion(key), primaryVersion(key)].some((version) => version.useCount >= this.#maxUsesOf(version) * warnShare);
    });
  }

  #mustMove(key: Key): boolean {
    if (!canMove(key)) return false;
    const version = primaryVersion(key);
    const maxUses = this.#maxUsesOf(version);
    return version.useCount >= maxUses - Math.ceil(maxUses / reserveShare) || !isCountKnown(version, this.#keyring.facts.restores);
  }

  async #move(key: Key): Promise<void> {
    const moving = this.#makeVersion(key).catch((error: unknown) => {
      if (this.#isFull(primaryVersion(key)) || !isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
      // What is left of the old version serves until the vault can be written again; the next encryption tries anew.
    });
    this.#moving.set(key.keyId, moving);
    try {
      await moving;
    } finally {
      this.#moving.delete(key.keyId);
    }
  }

  #reserve(key: Key, version: KeyVersionEntry, upTo: number): void {
    const isUnsaid = !this.#keyring.facts.nearlySpent?.includes(key.keyId);
    if (isUnsaid && version.useCount >= this.#maxUsesOf(version) * warnShare) this.#warn(key); // a crash may have counted past the place
    const before = version.reservedUses;
    version.reservedUses = upTo;
    try {
      this.#keyring.commit({ keys: [this.#keyring.keyById(key.keyId)] }); // the newest copy: `key` may be older than a change
    } catch (error) {
      version.reservedUses = before;
      throw error;
    }
  }
}
