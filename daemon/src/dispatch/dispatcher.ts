import { randomUUID } from 'node:crypto';
import { AgentError, isAgentError, type MethodName, type MethodParams, type MethodResult, specs } from '@kms-agent/protocol';
import type { AuditEntry } from '../audit/record.ts';
import type { Caller } from '../caller/identity.ts';
import type { Handlers } from '../operations/index.ts';
import { describeCaller, describeTarget, type FindKeyId } from './recording.ts';
import type { Answer, Call, Dispatch } from './request.ts';

/** What the dispatcher asks of the agent it serves. */
export interface AgentGate {
  /** @throws AgentError `ERR_NOT_INITIALIZED`, `ERR_AGENT_LOCKED`. */
  requireUnlocked(): void;
  /** Runs work that needs keys, so that lock can wait for it. */
  withKeys<T>(work: () => Promise<T> | T): Promise<T>;
}

/** What the dispatcher asks of the policy. */
export interface Authorizer {
  /** @throws AgentError `ERR_ACCESS_DENIED`, `ERR_RATE_LIMITED`, `ERR_LIMIT_EXCEEDED`. */
  authorize<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): void;
  /** The same after a wait, of a request whose limits were counted. @throws AgentError `ERR_ACCESS_DENIED`. */
  authorizeAgain<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): void;
}

/** What the dispatcher asks of the audit record. */
export interface Recorder {
  /** @throws AgentError `ERR_AUDIT_UNAVAILABLE` while nothing can be recorded. */
  requireHealthy(): void;
  /** Resolves when the entry is written. @throws AgentError `ERR_AUDIT_UNAVAILABLE`. */
  record(entry: AuditEntry): Promise<void>;
  /** Records the end of what has happened already: now, or as soon as it can be written. */
  note(entry: AuditEntry): void;
  countUnrecorded(): void;
  /** Writes what waits now. By itself that is done once in a turn of the event loop. */
  flush(): void;
}

export interface DispatcherOptions {
  readonly handlers: Handlers;
  readonly policy: Authorizer;
  readonly gate: AgentGate;
  readonly audit: Recorder;
  /** The key that a request names, for the record. */
  readonly findKeyId: FindKeyId;
  /** Revision of the vault, for the record of a change that begins. */
  readonly vaultRevision: () => string;
  /** Milliseconds after which a request is answered ERR_TIMEOUT. */
  readonly requestTimeoutMs: number;
  /** Hears of each answer. */
  readonly onAnswer: (answered: Answered) => void;
  /** Tells the log what went wrong inside; never the caller. */
  readonly onInternalError: (requestId: string, method: string | undefined, error: unknown) => void;
}

/** An answer that leaves, for the log and for who counts. */
export interface Answered {
  readonly requestId: string;
  /** `unknown` for what is no method. */
  readonly method: string;
  readonly caller: Caller;
  /** `ok` or the code of the error. */
  readonly code: string;
  readonly keyId?: string | undefined;
  /** From the decoded request to the answer. */
  readonly seconds: number;
}

/** What is answered although it cannot be recorded: how the agent is, and its end. */
const evenUnrecorded: ReadonlySet<MethodName> = new Set(['status', 'lock', 'whoAmI']);

/**
 * The straight road of a request: recordable → unlocked → authorized → run with a deadline → recorded → answered.
 * The only place that turns an error into an answer.
 */
export class Dispatcher implements Dispatch {
  readonly #options: DispatcherOptions;
  #inFlight = 0;
  /** Of those, the ones that wait for their record only. */
  #recording = 0;
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
    const request: Request<M> = { ...call, requestId: randomUUID(), startMs: performance.now() };
    this.#inFlight += 1;
    try {
      this.#authorize(call);
      const { changes } = specs[call.method];
      if (changes) await this.#options.audit.record(this.#begun(request));
      const result = changes ? await this.#change(request, call) : await this.#run(call, (late, error) => this.#noteLate(request, late, error));
      const unrecorded = changes ? undefined : await this.#record(request, result, undefined);
      return unrecorded ? this.#answerError(request, unrecorded) : this.#answer(request, result);
    } catch (error) {
      return await this.#refuse(request, error);
    } finally {
      this.#inFlight -= 1;
    }
  }

  async refuse(caller: Caller, error: AgentError, method?: string, notification = false): Promise<Answer> {
    return await this.#refuse({ requestId: randomUUID(), startMs: performance.now(), caller, method, notification }, error);
  }

  #authorize<M extends MethodName>({ caller, method, params }: Call<M>): void {
    const { audit, gate, policy } = this.#options;
    if (!evenUnrecorded.has(method)) audit.requireHealthy();
    if (this.#stopping) throw new AgentError('ERR_SHUTTING_DOWN');
    if (specs[method].needsKeys) gate.requireUnlocked();
    policy.authorize(caller, method, params);
  }

  /** @param onLate - hears of the end of work that was answered ERR_TIMEOUT. @throws OverdueError. */
  #run<M extends MethodName>({ caller, method, params }: Call<M>, onLate: OnLate): Promise<MethodResult<M>> | MethodResult<M> {
    const { gate, handlers } = this.#options;
    const handler = handlers[method] as (caller: Caller, params: MethodParams<M>) => Promise<MethodResult<M>> | MethodResult<M>; // the union over methods collapses to this one
    const work = specs[method].needsKeys ? gate.withKeys(() => handler(caller, params)) : handler(caller, params);
    return work instanceof Promise ? this.#withDeadline(work, onLate) : work;
  }

  /** Runs what changes something; its end is recorded before it is answered, and if it cannot be, the answer says that it is done all the same. */
  async #change<M extends MethodName>(request: Asked, call: Call<M>): Promise<MethodResult<M>> {
    const { audit } = this.#options;
    const end = (result: object | undefined, error: unknown): AuditEntry => ({
      ...this.#entry(request, result),
      ...(error === undefined ? { outcome: 'done' } : failureOf(isAgentError(error) ? error : undefined)),
    });
    let result: MethodResult<M>;
    try {
      this.#options.policy.authorizeAgain(call.caller, call.method, call.params); // while its beginning was written, an alias may have moved
      result = await this.#run(call, (late, error) => audit.note(end(late, error)));
    } catch (error) {
      if (error instanceof OverdueError) throw new RecordedError(error.answer); // it is still begun; its end is recorded when it comes
      await audit.record(end(undefined, error)).catch(() => audit.note(end(undefined, error))); // it is owed: the change is recorded as begun
      throw new RecordedError(error);
    }
    try {
      await audit.record(end(result, undefined));
    } catch {
      audit.note(end(result, undefined));
      throw new RecordedError(new AgentError('ERR_AUDIT_UNAVAILABLE', { done: true }));
    }
    return result;
  }

  /** One promise and no race: this is on the path of every request. */
  #withDeadline<T extends object>(work: Promise<T>, onLate: OnLate): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      reject(new OverdueError());
    }, this.#options.requestTimeoutMs);
    work.then(
      (result) => {
        clearTimeout(timer);
        if (isLate) onLate(result, undefined);
        else resolve(result);
      },
      (error: Error) => {
        clearTimeout(timer);
        if (isLate) onLate(undefined, error);
        else reject(error);
      },
    );
    return promise;
  }

  /** What was answered ERR_TIMEOUT has ended all the same: an unlock, for example. */
  #noteLate(request: Asked, result: object | undefined, error: unknown): void {
    const failure = error === undefined ? {} : { error: isAgentError(error) ? error.code : 'ERR_INTERNAL' };
    this.#options.audit.note({ ...this.#entry(request, result), outcome: error === undefined ? 'ok' : 'failed', ...failure, detail: { late: true } });
  }

  #entry({ requestId, caller, method, params, notification }: Asked, result: object | undefined): Omit<AuditEntry, 'outcome'> {
    return {
      operation: nameOf(method),
      caller: describeCaller(caller),
      ...describeTarget(params, result, this.#options.findKeyId),
      requestId,
      ...(notification ? { notification: true } : {}),
    };
  }

  #begun(request: Asked): AuditEntry {
    const token = request.params && 'clientToken' in request.params ? request.params.clientToken : undefined;
    const detail = typeof token === 'string' ? { detail: { clientToken: token } } : {};
    return { ...this.#entry(request, undefined), outcome: 'begun', vaultRevision: this.#options.vaultRevision(), ...detail };
  }

  /** Records an answer. @returns the error that is answered in its place when it cannot be. */
  async #record(request: Asked, result: object | undefined, error: AgentError | undefined): Promise<AgentError | undefined> {
    this.#recording += 1;
    // When no other request runs, nothing else comes in this turn of the event loop that could share the write.
    if (this.#recording >= this.#inFlight) process.nextTick(() => this.#options.audit.flush());
    try {
      await this.#options.audit.record({ ...this.#entry(request, result), ...(error ? failureOf(error) : { outcome: 'ok' }) });
      return undefined;
    } catch (failure) {
      this.#options.audit.countUnrecorded();
      const isAnswered = request.method !== undefined && evenUnrecorded.has(request.method as MethodName);
      return isAnswered || !isAgentError(failure) ? undefined : failure;
    } finally {
      this.#recording -= 1;
    }
  }

  #answer<M extends MethodName>(request: Request<M>, result: MethodResult<M>): Answer<M> {
    this.#tell(request, 'ok', 'keyId' in result && typeof result.keyId === 'string' ? result.keyId : undefined);
    return { requestId: request.requestId, result };
  }

  async #refuse(request: Asked, thrown: unknown): Promise<{ requestId: string; error: AgentError }> {
    const inner = thrown instanceof RecordedError ? thrown.cause : thrown;
    const cause = inner instanceof OverdueError ? inner.answer : inner;
    const error = isAgentError(cause) ? cause : new AgentError('ERR_INTERNAL', {}, { cause });
    if (error.code === 'ERR_INTERNAL') this.#options.onInternalError(request.requestId, request.method, error.cause ?? error);
    const unrecorded = thrown instanceof RecordedError ? undefined : await this.#record(request, undefined, error);
    return this.#answerError(request, unrecorded ?? error);
  }

  #answerError(request: Asked, error: AgentError): { requestId: string; error: AgentError } {
    this.#tell(request, error.code, undefined);
    return { requestId: request.requestId, error };
  }

  #tell({ requestId, method, caller, startMs }: Asked, code: string, keyId: string | undefined): void {
    this.#options.onAnswer({ requestId, method: nameOf(method), caller, code, keyId, seconds: (performance.now() - startMs) / 1000 });
  }
}

/** A method, or `unknown`: what is no method of ours is never repeated. */
const nameOf = (method: string | undefined): string => (method !== undefined && Object.hasOwn(specs, method) ? method : 'unknown');

/** A request as far as it could be read. */
interface Asked {
  readonly requestId: string;
  /** On the clock of performance.now(). */
  readonly startMs: number;
  readonly caller: Caller;
  readonly method?: string | undefined;
  readonly params?: object;
  readonly notification: boolean;
}

/** A request that could be read whole. */
interface Request<M extends MethodName> extends Asked, Call<M> {
  readonly method: M;
  readonly params: MethodParams<M>;
}

/** How what did not go well is recorded. */
const failureOf = (error: AgentError | undefined): Pick<AuditEntry, 'outcome' | 'error'> =>
  error?.code === 'ERR_ACCESS_DENIED' ? { outcome: 'denied', error: error.code } : { outcome: 'failed', error: error?.code ?? 'ERR_INTERNAL' };

/** Hears how work ended that nobody waited for any more. */
type OnLate = (result: object | undefined, error: unknown) => void;

/** Work takes longer than a request may; it goes on. */
class OverdueError extends Error {
  readonly answer = new AgentError('ERR_TIMEOUT', { mayHaveRun: true });
}

/** The failure of a change, whose end is recorded already. */
class RecordedError extends Error {
  constructor(cause: unknown) {
    super('recorded', { cause });
  }
}
