import { AgentError, type MethodName } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';

/** What everybody who can open the socket may do. */
const openMethods: ReadonlySet<MethodName> = new Set(['status', 'whoAmI', 'rpc.discover']);

/** Decides who may do what: administrators everything, everybody else what is open to all. */
export class Policy {
  readonly #administrators: ReadonlySet<number>;

  /** @param administrators - uids; root and the agent's own user. */
  constructor(administrators: readonly number[]) {
    this.#administrators = new Set(administrators);
  }

  isAdministrator(caller: Caller): boolean {
    return this.#administrators.has(caller.uid);
  }

  /** @throws AgentError `ERR_ACCESS_DENIED`, the same for what exists and what does not. */
  authorize(caller: Caller, method: MethodName): void {
    if (!openMethods.has(method) && !this.isAdministrator(caller)) throw new AgentError('ERR_ACCESS_DENIED');
  }
}
