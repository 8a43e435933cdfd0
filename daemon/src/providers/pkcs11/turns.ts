import type { Asker } from '../../caller/identity.ts';
import { changes, unrepeatable } from './connection.ts';
import { CostlyCalls, free } from './costly-calls.ts';
import { type CallName, type Calls, TokenFailure } from './messages.ts';
import { Quarantine } from './quarantine.ts';
import type { TokenSettings } from './settings.ts';
import { Slots } from './slots.ts';
import type { Tries } from './tries.ts';

/** A call, as far as its turn goes. */
export interface Asked {
  readonly call: CallName;
  /** Whoever waits for it; undefined for the agent itself. */
  readonly asker: Asker | undefined;
  /** What it has in common with others that would end as it does; undefined for what is never repeated. */
  readonly kind: string | undefined;
}

/** Calls of one user for one thing with one key are of a kind. */
export function kindOf<C extends CallName>(call: C, params: Calls[C]['takes'], asker: Asker | undefined): string | undefined {
  if (unrepeatable.has(call) || !('key' in params)) return undefined;
  return `${asker?.uid ?? 'agent'} ${call} ${params.key.keyVersionId}`;
}

/** When a call is tried: in a slot beside others, or alone what may have cost a helper, or one for all of a kind that has. */
export class Turns {
  readonly #settle: () => Promise<void> | undefined;
  readonly #slots: Slots;
  readonly #changes: Slots;
  readonly #quarantine = new Quarantine();
  readonly #costly: CostlyCalls;

  /** @param settle - waits for a recovery that runs, or must begin; throws when it fails. */
  constructor({ sessions, maxQueued, timeoutMs }: TokenSettings, settle: () => Promise<void> | undefined) {
    this.#settle = settle;
    this.#slots = new Slots(sessions, maxQueued);
    this.#changes = new Slots(1, maxQueued);
    this.#costly = new CostlyCalls(timeoutMs, maxQueued);
  }

  /** Runs a try when its turn comes. @throws TokenFailure of kind `failed`, untried; AgentError `ERR_BUSY`; whatever `ask` throws. */
  async run<T>(asked: Asked, tries: Tries, ask: () => Promise<T>): Promise<T> {
    for (;;) {
      const answer = await this.#run(asked, tries, ask);
      if (answer !== free) return answer;
    }
  }

  /** A call is not tried again. */
  end(tries: Tries): void {
    this.#quarantine.forget(tries);
  }

  async #run<T>(asked: Asked, tries: Tries, ask: () => Promise<T>): Promise<T | typeof free> {
    const { call, asker, kind } = asked;
    const work = (letIn?: () => void): Promise<T> => this.#try(asked, tries, ask, letIn);
    if (kind !== undefined && this.#costly.has(kind)) {
      this.#quarantine.forget(tries);
      return await this.#costly.run(kind, asker, (end) => {
        tries.spend(end);
        return this.#quarantine.alone(tries, work);
      });
    }
    // while it waits for its turn, others of its kind may cost helpers
    const workUnlessCostly = async (letIn?: () => void): Promise<T | typeof free> => (kind !== undefined && this.#costly.has(kind) ? free : await work(letIn));
    if (tries.suspicion) return await this.#quarantine.alone(tries, workUnlessCostly);
    if (changes.has(call)) return await this.#changes.run(() => this.#quarantine.change(workUnlessCostly), asker);
    return await this.#slots.run(() => this.#quarantine.beside(workUnlessCostly), asker);
  }

  async #try<T>({ kind }: Asked, tries: Tries, ask: () => Promise<T>, letIn?: () => void): Promise<T> {
    await this.#settle(); // the helper may have been lost since it began to wait for its turn
    tries.begin();
    try {
      const answer = ask();
      if (tries.suspicion === 'late') letIn?.();
      return await answer;
    } catch (error) {
      if (!(error instanceof TokenFailure) || error.failure.kind !== 'fault') throw error;
      tries.note(error.failure);
      if (tries.suspicion) this.#quarantine.expect(tries); // at once, before others have their turn
      if (kind !== undefined && tries.isSpent) this.#costly.note(kind, error.failure.helper ?? 'died');
      throw error;
    }
  }
}
