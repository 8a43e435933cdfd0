import { setImmediate } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import type { Key, StatementUse } from './key.ts';
import type { Keyring } from './keyring.ts';

/** Milliseconds that a written lastUsedTime may be behind. */
const usageGrainMs = 3_600_000;

/** Keys whose counts are written at once at lock; between two batches others have their turn. */
const settleBatch = 100;

/** Uses of a statement for which one more is reserved ahead. */
const reservedShare = 64;

/** How often a statement of a policy let an operation through. */
export interface PolicyTotal {
  readonly used: number;
  /** Counts one more. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  take(): void;
}

/** Which keys were used since the unlock, and what of that is written when: nothing on the way of a request but a reserve that is spent. */
export class Uses {
  readonly #keyring: Keyring;
  readonly #used = new Set<string>();

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** A key is used now. */
  note(key: Key): void {
    key.usage.lastUsedTime = this.#keyring.clock.now();
    this.#used.add(key.keyId);
  }

  /** A key that is gone. */
  forget(keyId: string): void {
    this.#used.delete(keyId);
  }

  clear(): void {
    this.#used.clear();
  }

  /** The durable count of a policy's statement. @see StatementUse */
  policyTotal(keyId: string, index: number): PolicyTotal {
    const use = this.#keyring.keyById(keyId).policyUses?.[index] ?? { used: 0, reserved: 0 };
    return { used: use.used, take: () => this.#takePolicyUse(keyId, use) };
  }

  /** Writes when keys were last used, for at most `limit` keys whose record is an hour behind. */
  write(limit: number): void {
    const behind: Key[] = [];
    for (const keyId of this.#used) {
      const key = this.#keyring.findKey(keyId);
      if (key && key.usage.lastUsedTime - key.usage.writtenTime >= usageGrainMs && behind.push(key) === limit) break;
    }
    if (behind.length > 0) this.#keyring.commit({ keys: behind });
  }

  /** Writes exact counts, once nobody uses a key any more. @param maxMs - longest time: what is left keeps the higher counts that it has in the vault. */
  async settle(maxMs: number): Promise<void> {
    const end = performance.now() + maxMs;
    const used = [...this.#used];
    for (let first = 0; first < used.length && performance.now() < end; first += settleBatch) {
      this.#settle(used.slice(first, first + settleBatch).flatMap((keyId) => this.#keyring.findKey(keyId) ?? []));
      await setImmediate();
    }
  }

  #settle(keys: readonly Key[]): void {
    for (const key of keys) {
      for (const version of key.versions) version.reservedUses = version.useCount;
      for (const use of key.policyUses ?? []) use.reserved = use.used;
    }
    try {
      this.#keyring.commit({ keys });
    } catch (error) {
      if (!isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
      // A vault that cannot be written keeps the higher counts it has: that over-counts, and lock must go on.
    }
  }

  /** A share of what is used already is reserved ahead, so that a limit of few is counted exactly and one of many does not write each time. */
  #takePolicyUse(keyId: string, use: StatementUse): void {
    const before = use.reserved;
    if (use.used >= use.reserved) {
      use.reserved = use.used + 1 + Math.floor(use.used / reservedShare);
      try {
        this.#keyring.commit({ keys: [this.#keyring.keyById(keyId)] });
      } catch (error) {
        use.reserved = before;
        throw error;
      }
    }
    use.used += 1;
    this.#used.add(keyId);
  }
}
