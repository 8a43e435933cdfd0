import { AgentError } from '@kms-agent/protocol';
import type { Asker } from '../../caller/identity.ts';
import { TurnQueue } from './turn-queue.ts';

interface Waiting {
  readonly begin: () => void;
  readonly refuse: (error: AgentError) => void;
}

/** Whoever asks for the agent itself; no user has such a number. */
const agent: Asker = { uid: -1, connection: 0 };

export const busy = (): AgentError => new AgentError('ERR_BUSY', { retryAfterMs: 1000 });

/** Lets so many work side by side and so many wait: users take turns, of a user connections do, and of a connection it is the order in which they came. */
export class Slots {
  readonly #size: number;
  readonly #maxWaiting: number;
  readonly #waiting = new TurnQueue<Waiting>();
  #taken = 0;

  constructor(size: number, maxWaiting: number) {
    this.#size = size;
    this.#maxWaiting = maxWaiting;
  }

  /** @throws AgentError `ERR_BUSY` when too many wait: the last of those of the user that has most. */
  async run<T>(work: () => Promise<T>, asker: Asker = agent): Promise<T> {
    if (this.#taken >= this.#size) await this.#wait(asker);
    else this.#taken += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next)
        next.begin(); // takes over the slot
      else this.#taken -= 1;
    }
  }

  #wait({ uid, connection }: Asker): Promise<void> {
    if (this.#waiting.length >= this.#maxWaiting) this.#makeRoom(uid);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ begin: resolve, refuse: reject }, [uid, connection]);
    return promise;
  }

  #makeRoom(uid: number): void {
    if (this.#waiting.lengthOf(uid) + 1 >= this.#waiting.longest) throw busy();
    this.#waiting.drop()?.refuse(busy());
  }
}
