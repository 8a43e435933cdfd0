import { randomUUID } from 'node:crypto';
import { AgentError, isAgentError, type MethodName, type MethodParams, type MethodResult, specs } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import type { Handlers } from '../operations/index.ts';
import type { Policy } from '../policy/policy.ts';
import type { Answer, Call, Dispatch, Outcome } from './request.ts';

/** What the dispatcher asks of the agent it serves. */
export interface AgentGate {
  /** @throws AgentError `ERR_NOT_INITIALIZED`, `ERR_AGENT_LOCKED`. */
  requireUnlocked(): void;
  /** Runs work that needs keys, so that lock can wait for it. */
  withKeys<T>(work: () => Promise<T> | T): Promise<T>;
}

export interface DispatcherOptions {
  readonly handlers: Handlers;
  readonly policy: Policy;
  readonly gate: AgentGate;
  /** Milliseconds after which a request is answered ERR_TIMEOUT. */
  readonly requestTimeoutMs: number;
  /** Records the outcome of each request; the audit stands here. Runs before the answer leaves. */
  readonly record: (outcome: Outcome) => void;
  /** Tells the log what went wrong inside; never the caller. */
  readonly onInternalError: (requestId: string, method: string | undefined, error: unknown) => void;
}

/**
 * The straight road of a request: unlocked → authorized → run with a deadline → recorded → answered.
 * The only place that turns an error into an answer.
 */
export class Dispatcher implements Dispatch {
  readonly #options: DispatcherOptions;
  #inFlight = 0;
  #stopping = false;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** From now on every request is answered ERR_SHUTTING_DOWN. */
  stop(): void {
    this.#stopping = true;
  }

  async dispatch<M extends MethodName>(call: Call<M>): Promise<Answer<M>> {
    const requestId = randomUUID();
    this.#inFlight += 1;
    try {
      const result = await this.#run(call);
      this.#record(requestId, call, undefined);
      return { requestId, result };
    } catch (error) {
      return this.#answerError(requestId, call, error);
    } finally {
      this.#inFlight -= 1;
    }
  }

  refuse(caller: Caller, error: AgentError, method?: string, notification = false): Answer {
    const requestId = randomUUID();
    return this.#answerError(requestId, { caller, method, notification }, error);
  }

  async #run<M extends MethodName>({ caller, method, params }: Call<M>): Promise<MethodResult<M>> {
    const { gate, policy, handlers } = this.#options;
    if (this.#stopping) throw new AgentError('ERR_SHUTTING_DOWN');
    const { needsKeys } = specs[method];
    if (needsKeys) gate.requireUnlocked();
    policy.authorize(caller, method, params);
    const handler = handlers[method] as (caller: Caller, params: MethodParams<M>) => Promise<MethodResult<M>> | MethodResult<M>; // the union over methods collapses to this one
    const work = needsKeys ? gate.withKeys(() => handler(caller, params)) : handler(caller, params);
    return work instanceof Promise ? await this.#withDeadline(work) : work;
  }

  async #withDeadline<T>(work: Promise<T>): Promise<T> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new AgentError('ERR_TIMEOUT', { mayHaveRun: true })), this.#options.requestTimeoutMs);
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #record(
    requestId: string,
    { caller, method, notification }: { caller: Caller; method: MethodName | undefined; notification: boolean },
    error: AgentError | undefined,
  ): void {
    this.#options.record({ requestId, caller, method, error, notification });
  }

  #answerError(
    requestId: string,
    call: { caller: Caller; method?: string | undefined; notification: boolean },
    thrown: unknown,
  ): { requestId: string; error: AgentError } {
    const error = isAgentError(thrown) ? thrown : new AgentError('ERR_INTERNAL', {}, { cause: thrown });
    if (error.code === 'ERR_INTERNAL') this.#options.onInternalError(requestId, call.method, error.cause ?? error);
    const method = call.method !== undefined && Object.hasOwn(specs, call.method) ? (call.method as MethodName) : undefined; // hasOwn proved it
    this.#record(requestId, { caller: call.caller, method, notification: call.notification }, error);
    return { requestId, error };
  }
}
