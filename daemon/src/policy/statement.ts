import { AgentError, type BindableFact, type KeyPolicy, type PolicyStatement } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import { expandAction, isMending } from './actions.ts';
import { type LimitContext, Limiter, type TotalCount } from './limits.ts';
import { type CompiledPrincipal, compilePrincipal, type Match } from './principal.ts';

/** A statement that is ready to be asked. */
interface CompiledStatement {
  readonly index: number;
  readonly sid?: string;
  readonly actions: ReadonlySet<string>;
  readonly principals: readonly CompiledPrincipal[];
  readonly limiter?: Limiter;
  readonly bindAad: readonly BindableFact[];
}

/** What a policy says about one operation. */
export interface Decision {
  readonly allowed: boolean;
  /** The statement that decided; absent when none did. */
  readonly statement?: { readonly index: number; readonly sid?: string };
  /** A limit is why it is not allowed now. */
  readonly limit?: AgentError;
}

/** The durable count of a statement, by its place. */
export type Totals = (index: number) => TotalCount;

/** What is asked of a policy. */
export interface Question {
  readonly caller: Caller;
  readonly action: string;
  /** Another name of the same operation, which a Deny may speak of. */
  readonly alias?: string;
  readonly isAdministrator: boolean;
}

const tell = ({ index, sid }: CompiledStatement): { index: number; sid?: string } => ({ index, ...(sid === undefined ? {} : { sid }) });

/** Any one suffices; unknown where none is sure to be the caller and one may be. */
function matchAny(caller: Caller, principals: readonly CompiledPrincipal[]): Match {
  let answer: Match = 'no';
  for (const { test } of principals) {
    const match = test(caller);
    if (match === 'yes') return 'yes';
    if (match === 'unknown') answer = 'unknown';
  }
  return answer;
}

/** A policy, compiled once. Deny wins; what nobody allows is denied. */
export class CompiledPolicy {
  readonly #allows: readonly CompiledStatement[];
  readonly #denies: readonly CompiledStatement[];
  /** Whether a right in it puts facts about the caller under a seal. */
  readonly binds: boolean;

  /** @throws AgentError `ERR_INVALID_PARAMS` with `path` below `root`: unknown actions, users and kinds are errors. */
  constructor({ statements }: KeyPolicy, of: 'key' | 'agent', context: LimitContext, root = '/policy') {
    const compiled = statements.map((statement, index) => ({ effect: statement.effect, made: compile(statement, index, of, context, root) }));
    this.#allows = compiled.filter(({ effect }) => effect === 'Allow').map(({ made }) => made);
    this.#denies = compiled.filter(({ effect }) => effect === 'Deny').map(({ made }) => made);
    this.binds = this.#allows.some(({ bindAad }) => bindAad.length > 0);
  }

  /** Decides. Who cannot be read is let in by no Allow and kept out by every Deny. @param count - takes one of the statement's limits, if it lets the operation through. */
  decide(question: Question, totals: Totals, count: boolean): Decision {
    const denying = this.#denies.find((statement) => concerns(statement, question) && matchAny(question.caller, statement.principals) !== 'no');
    if (denying && !(question.isAdministrator && isMending(question.action))) return { allowed: false, statement: tell(denying) };
    let limit: Decision | undefined;
    for (const statement of this.#matchingAllows(question)) {
      const refusal = statement.limiter?.refusal(totals(statement.index));
      if (!refusal) {
        if (count) statement.limiter?.take(totals(statement.index));
        return { allowed: true, statement: tell(statement) };
      }
      limit ??= { allowed: false, statement: tell(statement), limit: refusal };
    }
    return limit ?? { allowed: false };
  }

  /** Facts that every right of the caller to this operation puts under the seal, whichever of them decides. */
  bindings(question: Question): ReadonlySet<BindableFact> {
    return new Set([...this.#matchingAllows(question)].flatMap(({ bindAad }) => bindAad));
  }

  *#matchingAllows({ caller, action }: Question): Generator<CompiledStatement> {
    for (const statement of this.#allows) if (statement.actions.has(action) && matchAny(caller, statement.principals) === 'yes') yield statement;
  }
}

const concerns = ({ actions }: CompiledStatement, { action, alias }: Question): boolean => actions.has(action) || (alias !== undefined && actions.has(alias));

function compile(statement: PolicyStatement, index: number, of: 'key' | 'agent', context: LimitContext, root: string): CompiledStatement {
  const at = `${root}/statements/${index}`;
  const { sid, principals, actions, limits, bindAad = [] } = statement;
  const expanded = actions.flatMap((name, place) => {
    const known = expandAction(name, of);
    if (known) return known;
    throw new AgentError('ERR_INVALID_PARAMS', { path: `${at}/actions/${place}`, reason: 'is no action that this policy can name' });
  });
  if (of === 'agent' && (bindAad.length > 0 || limits?.total !== undefined))
    throw new AgentError('ERR_INVALID_PARAMS', { path: at, reason: 'bindAad and limits.total belong to the policy of a key' });
  const compiled = principals.map((principal, place) => compilePrincipal(principal, `${at}/principals/${place}`));
  return {
    index,
    ...(sid === undefined ? {} : { sid }),
    actions: new Set(expanded),
    principals: compiled.toSorted((a, b) => Number(a.readsProcess) - Number(b.readsProcess)), // what opens /proc is asked last
    ...(limits ? { limiter: new Limiter(limits, context) } : {}),
    bindAad,
  };
}
