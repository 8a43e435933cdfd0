import { AgentError, type MethodName, type MethodParams } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import type { Targets } from '../operations/targets.ts';

/** What everybody who can open the socket may do. */
const openMethods: ReadonlySet<MethodName> = new Set(['status', 'whoAmI', 'rpc.discover']);

/** What uses a key. */
const cryptographicMethods: ReadonlySet<MethodName> = new Set([
  'encrypt',
  'decrypt',
  'advanceEncrypt',
  'advanceDecrypt',
  'generateDataKey',
  'advanceGenerateDataKey',
  'generateDataKeyWithoutPlaintext',
  'reEncrypt',
  'sign',
  'verify',
]);

/** What a service may do with its own key. */
const serviceMethods: ReadonlySet<MethodName> = new Set([...cryptographicMethods, 'describeKey', 'getPublicKey']);

/** Finds the keys that a request names. */
export type FindTargets = <M extends MethodName>(params: MethodParams<M>) => Targets;

const denied = (): AgentError => new AgentError('ERR_ACCESS_DENIED');

/** Decides who may do what: administrators everything, a service what its own key is for, everybody else what is open to all. */
export class Policy {
  readonly #administrators: ReadonlySet<number>;
  readonly #findTargets: FindTargets;

  /** @param administrators - uids; root and the agent's own user. */
  constructor(administrators: readonly number[], findTargets: FindTargets) {
    this.#administrators = new Set(administrators);
    this.#findTargets = findTargets;
  }

  isAdministrator(caller: Caller): boolean {
    return this.#administrators.has(caller.uid);
  }

  /** @throws AgentError `ERR_ACCESS_DENIED`, the same for what exists and what does not. */
  authorize<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): void {
    if (openMethods.has(method)) return;
    const administrator = this.isAdministrator(caller);
    if (administrator && !cryptographicMethods.has(method)) return;
    if (!administrator && !serviceMethods.has(method)) throw denied();
    const targets = this.#findTargets(params);
    const isForeign = (owner: string | undefined): boolean => owner !== caller.service();
    if (administrator && targets.some((key) => key?.service !== undefined && isForeign(key.service))) throw denied();
    if (!administrator && (caller.service() === undefined || targets.some((key) => isForeign(key?.service)))) throw denied();
  }
}
