import { AgentError, type KeyPolicy, type MethodName, type MethodParams } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import type { Key } from '../keyring/key.ts';
import type { Keyring } from '../keyring/keyring.ts';
import type { Authority, Verdict } from '../operations/authority.ts';
import { agentActions, isCryptographic, keyActions, openMethods } from './actions.ts';
import { type Binding, bindFacts, readFacts } from './binding.ts';
import { defaultPolicyOf } from './defaults.ts';
import { type Demand, findDemands } from './demands.ts';
import { compilePrincipal } from './principal.ts';
import { CompiledPolicy, type Decision, type Question, type Totals } from './statement.ts';
import { preparePolicy } from './writing.ts';

/** What a policy works with. */
export interface PolicyOptions {
  /** Principals by user or group, as the setting has them. */
  readonly administrators: readonly string[];
  /** Rights to methods without a key, as the setting has them. */
  readonly agentPolicy: KeyPolicy;
  /** The keys; only asked while unlocked. */
  readonly keyring: () => Keyring;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** What tells this machine from others; undefined where it has nothing of the kind. */
  readonly hostId: () => string | undefined;
  /** Whether the executables of callers can be read. */
  readonly readsExecutables: boolean;
}

const denied = (): AgentError => new AgentError('ERR_ACCESS_DENIED');
const noTotals: Totals = () => undefined as never; // the agent's policy has no totals: its compiler refuses them

const keyed: ReadonlySet<string> = new Set(keyActions);
const agentMethods: ReadonlySet<string> = new Set(agentActions);

/** Decides who may do what, and why. */
export class Policy implements Authority {
  readonly #options: PolicyOptions;
  #administrators: readonly ReturnType<typeof compilePrincipal>[];
  #agentPolicy: CompiledPolicy;
  readonly #compiled = new WeakMap<KeyPolicy, CompiledPolicy>();

  /** @throws AgentError `ERR_INVALID_PARAMS` with the `path` of a wrong setting. */
  constructor(options: PolicyOptions) {
    this.#options = options;
    this.#administrators = compileAdministrators(options.administrators);
    this.#agentPolicy = new CompiledPolicy(options.agentPolicy, 'agent', options);
  }

  /** Takes over other settings; where one is wrong, none. @throws AgentError `ERR_INVALID_PARAMS` with the `path` of the wrong one. */
  reload({ administrators, agentPolicy }: Pick<PolicyOptions, 'administrators' | 'agentPolicy'>): void {
    const [compiled, policy] = [compileAdministrators(administrators), new CompiledPolicy(agentPolicy, 'agent', this.#options)];
    this.#administrators = compiled;
    this.#agentPolicy = policy;
  }

  isAdministrator(caller: Caller): boolean {
    return this.#administrators.some(({ test }) => test(caller) === 'yes');
  }

  /** @throws AgentError `ERR_ACCESS_DENIED`, the same for what exists and what does not; `ERR_RATE_LIMITED`, `ERR_LIMIT_EXCEEDED` of a right that has limits. */
  authorize<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): void {
    const { allowed, limit } = this.#judge(caller, method, params, true);
    if (!allowed) throw limit ?? denied();
  }

  /** @throws AgentError `ERR_ACCESS_DENIED`. A limit that is reached meanwhile, by this request too, is no reason. */
  authorizeAgain<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): void {
    const { allowed, limit } = this.judge(caller, method, params);
    if (!allowed && !limit) throw denied();
  }

  /** What authorize would say, and why. Changes nothing. */
  judge<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): Verdict {
    return this.#judge(caller, method, params, false);
  }

  keysFor<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): Demand['key'][] {
    return keyed.has(method) ? findDemands(this.#options.keyring(), caller, method, params).map(({ key }) => key) : [];
  }

  mayDescribe(caller: Caller, key: Key): boolean {
    return this.#judgeKey(caller, { action: 'describeKey', key }, this.isAdministrator(caller), false).allowed;
  }

  policyOf(key: Key): KeyPolicy {
    return key.policy ?? defaultPolicyOf(key);
  }

  prepare(policy: KeyPolicy): { policy: KeyPolicy; warnings: string[] } {
    const prepared = preparePolicy(policy, this.#options);
    new CompiledPolicy(prepared.policy, 'key', this.#options);
    return prepared;
  }

  bind(caller: Caller, key: Key, action: 'advanceEncrypt'): Binding | undefined {
    const compiled = this.#compile(key);
    if (!compiled.binds) return undefined;
    const facts = compiled.bindings({ caller, action, isAdministrator: this.isAdministrator(caller) });
    return facts.size === 0 ? undefined : bindFacts(facts, this.#read(caller));
  }

  openBound(caller: Caller, bound: number): Uint8Array | undefined {
    return readFacts(bound, this.#read(caller));
  }

  #read(caller: Caller): { caller: Caller; hostId: () => string | undefined } {
    return { caller, hostId: this.#options.hostId };
  }

  #judge<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>, count: boolean): Verdict {
    if (openMethods.has(method)) return { allowed: true, rule: 'everyone' };
    const isAboutOneself = method === 'explain' && !('caller' in params && params.caller !== undefined);
    if (isAboutOneself) return { allowed: true, rule: 'everyone' };
    const isAdministrator = this.isAdministrator(caller);
    if (keyed.has(method)) return this.#judgeDemands(caller, findDemands(this.#options.keyring(), caller, method, params), isAdministrator, count);
    const makesDefault = method === 'createKey' && 'aliasName' in params && params.aliasName === 'alias/default';
    if (!agentMethods.has(method) || makesDefault) return isAdministrator ? { allowed: true, rule: 'administrator' } : { allowed: false, rule: 'noStatement' };
    const decision = this.#agentPolicy.decide({ caller, action: method, isAdministrator }, noTotals, count);
    return describe(decision, 'agentPolicy', isAdministrator);
  }

  /** All rights are needed; nothing is counted unless each is there. */
  #judgeDemands(caller: Caller, demands: readonly Demand[], isAdministrator: boolean, count: boolean): Verdict {
    const [only] = demands;
    if (only && demands.length === 1) return this.#judgeKey(caller, only, isAdministrator, count);
    const verdicts = demands.map((demand) => this.#judgeKey(caller, demand, isAdministrator, false));
    const refused = verdicts.find(({ allowed, limit }) => !allowed && !limit) ?? verdicts.find(({ allowed }) => !allowed); // a limit that is reached says least
    if (refused) return refused;
    if (count)
      for (const demand of demands) {
        const counted = this.#judgeKey(caller, demand, isAdministrator, true); // another demand of this request may have taken the last one
        if (!counted.allowed) return counted;
      }
    return verdicts[0] ?? { allowed: false, rule: 'noStatement' };
  }

  #judgeKey(caller: Caller, { action, alias, key }: Demand, isAdministrator: boolean, count: boolean): Verdict {
    if (key === 'own') return { allowed: true, rule: 'keyPolicy' };
    if (key === undefined) return isAdministrator ? { allowed: true, rule: 'administrator' } : { allowed: false, rule: 'noStatement' };
    const question: Question = { caller, action, ...(alias === undefined ? {} : { alias }), isAdministrator };
    const decision = this.#compile(key).decide(question, (index) => this.#total(key, index), count);
    return describe(decision, 'keyPolicy', isAdministrator && !(key.service !== undefined && isCryptographic(action)));
  }

  #total(key: Key, index: number): ReturnType<Totals> {
    return this.#options.keyring().uses.policyTotal(key.keyId, index);
  }

  #compile(key: Key): CompiledPolicy {
    const policy = this.policyOf(key);
    const known = this.#compiled.get(policy);
    if (known) return known;
    const compiled = new CompiledPolicy(policy, 'key', this.#options);
    this.#compiled.set(policy, compiled);
    return compiled;
  }
}

const compileAdministrators = (administrators: readonly string[]): ReturnType<typeof compilePrincipal>[] =>
  administrators.map((principal, place) => compilePrincipal(principal, `/administrators/${place}`));

/** Checks settings as a policy compiles them. @throws AgentError `ERR_INVALID_PARAMS` with the `path` of a wrong one. */
export function checkAuthority({ administrators, agentPolicy }: Pick<PolicyOptions, 'administrators' | 'agentPolicy'>): void {
  compileAdministrators(administrators);
  new CompiledPolicy(agentPolicy, 'agent', { now: Date.now });
}

/** A decision as people are told it; where no statement decided, an administrator may. */
function describe({ allowed, statement, limit }: Decision, rule: 'keyPolicy' | 'agentPolicy', mayAnyhow: boolean): Verdict {
  if (mayAnyhow && !allowed && (!statement || limit)) return { allowed: true, rule: 'administrator' };
  if (!statement) return { allowed, rule: 'noStatement' };
  const { index, sid } = statement;
  return { allowed, rule, statementIndex: index, ...(sid === undefined ? {} : { sid }), ...(limit ? { limit } : {}) };
}
