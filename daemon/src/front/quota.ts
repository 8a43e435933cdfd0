/** How many connections there may be; each is a setting of the same name. */
export interface ConnectionLimits {
  /** All together. */
  readonly maxConnections: number;
  /** Of one user; root and the agent's own user have no such limit. */
  readonly maxConnectionsPerUid: number;
  /** Of `maxConnections`, for root and the agent's own user only; never more than half of them. */
  readonly reservedConnections: number;
}

/** Counts connections by user, so that nobody takes them all: who may lock the agent always gets in. */
export class ConnectionQuota {
  readonly #limits: ConnectionLimits;
  readonly #ownUid: number;
  readonly #counts = new Map<number, number>();
  #total = 0;

  /** @param ownUid - the user that the agent runs as. */
  constructor(limits: ConnectionLimits, ownUid: number) {
    this.#limits = limits;
    this.#ownUid = ownUid;
  }

  /** Takes one connection for a user. @returns false, and nothing is taken, when there is none for it. */
  take(uid: number): boolean {
    const count = this.#counts.get(uid) ?? 0;
    if (!this.#hasRoom(uid, count)) return false;
    this.#counts.set(uid, count + 1);
    this.#total += 1;
    return true;
  }

  /** Gives back what was taken. */
  release(uid: number): void {
    const count = (this.#counts.get(uid) ?? 0) - 1;
    if (count > 0) this.#counts.set(uid, count);
    else this.#counts.delete(uid);
    this.#total -= 1;
  }

  #hasRoom(uid: number, count: number): boolean {
    const { maxConnections, maxConnectionsPerUid, reservedConnections } = this.#limits;
    if (uid === 0 || uid === this.#ownUid) return this.#total < maxConnections;
    const reserved = Math.min(reservedConnections, Math.floor(maxConnections / 2));
    return count < maxConnectionsPerUid && this.#total < maxConnections - reserved;
  }
}
