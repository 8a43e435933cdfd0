import { randomUUID } from 'node:crypto';
import {
  AgentError,
  decodeResult,
  encodeParams,
  findSocket,
  isAgentError,
  type MethodName,
  type MethodParams,
  type MethodResult,
  specs,
} from '@kms-agent/protocol';
import { type Connection, openConnection } from './connection.ts';
import { checkTimeout, Deadline } from './deadline.ts';

/** How a client connects; every field has a default. */
export interface ConnectOptions {
  /** Default: `KMS_AGENT_SOCK`, else the user's agent if there is one, else the system's. */
  readonly socketPath?: string;
  /** Milliseconds that a call may take, waiting and repeating included; default 30,000, Infinity for no limit. */
  readonly timeoutMs?: number;
  /** Whether to connect again and repeat what may be repeated after a disconnect, for as long as the call has time and at most six times if the agent may have got it; default true. */
  readonly retry?: boolean;
  /** Ends connecting. */
  readonly signal?: AbortSignal;
}

/** What bounds one call. */
export interface CallOptions {
  /** Ends the wait; the agent may still finish. */
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** Requests that the agent runs at a time on one connection; what exceeds it waits here. */
const maxInFlight = 256;
const defaultTimeoutMs = 30_000;
/** Pauses before a new try after a disconnect, the last of them for as long as the call has time: a restart of the agent takes about a second, and others may follow. */
const retryPausesMs = [50, 200, 500, 1000, 2000] as const;
/** How often one call is sent and its connection lost: a request that kills the agent must not use up the restarts that its unit allows. */
const maxLosses = 6;

/** Milliseconds before the try after so many. */
const pauseAfter = (tries: number): number => retryPausesMs[Math.min(tries, retryPausesMs.length) - 1] ?? 0;

/** @throws TypeError for a field that is there and undefined: an unset variable must not silently mean the default key. */
function refuseUndefined(method: string, params: object): void {
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined) throw new TypeError(`${method}: ${name} is undefined; leave it out if it is not wanted`);
  }
}

/** A creation that is repeated after a disconnect must be made once: its token says that it is the same. */
function withClientToken<M extends MethodName>(method: M, params: MethodParams<M>): MethodParams<M> {
  if (method !== 'createKey' && method !== 'createKeyVersion') return params;
  return { clientToken: randomUUID(), ...params };
}

/** What an earlier attempt may have done, said with the error of the last one. */
function rememberRun(error: unknown): unknown {
  if (!isAgentError(error, 'ERR_UNREACHABLE', 'ERR_DISCONNECTED', 'ERR_BUSY', 'ERR_SHUTTING_DOWN')) return error;
  return new AgentError(error.code, { ...error.details, mayHaveRun: true }, { cause: error });
}

/** Carries typed calls over a connection that comes back by itself. */
export class Transport {
  readonly #path: string;
  readonly #timeoutMs: number;
  readonly #retry: boolean;
  readonly #waiting: (() => void)[] = [];
  /** Each ends a pause between two tries. */
  readonly #pauses = new Set<() => void>();
  #connection: Promise<Connection> | undefined;
  /** The last that was opened. */
  #current: Connection | undefined;
  #inFlight = 0;
  #closed = false;

  constructor({ socketPath, timeoutMs = defaultTimeoutMs, retry = true }: ConnectOptions) {
    this.#path = findSocket(socketPath).path;
    this.#timeoutMs = checkTimeout(timeoutMs);
    this.#retry = retry;
  }

  /** @throws AgentError `ERR_UNREACHABLE`, `ERR_TIMEOUT`; the signal's reason. */
  async open(signal?: AbortSignal): Promise<void> {
    const deadline = new Deadline(this.#timeoutMs, signal);
    try {
      await this.#connect(deadline);
    } finally {
      deadline.release();
    }
  }

  /** Runs a method. @throws TypeError for an undefined field; RangeError for a timeout that is none; AgentError as the agent answers, or `ERR_TIMEOUT`, `ERR_DISCONNECTED`, `ERR_UNREACHABLE`. */
  async call<M extends MethodName>(method: M, params: MethodParams<M>, { signal, timeoutMs = this.#timeoutMs }: CallOptions = {}): Promise<MethodResult<M>> {
    refuseUndefined(method, params);
    const wire = encodeParams(method, withClientToken(method, params));
    const deadline = new Deadline(checkTimeout(timeoutMs), signal);
    try {
      return decodeResult(method, await this.#run(method, wire, deadline));
    } finally {
      deadline.release();
    }
  }

  close(): void {
    this.#closed = true;
    for (const end of this.#pauses) end();
    const ignore = (): void => undefined; // whoever was connecting has been told
    this.#connection?.then((connection) => connection.close(), ignore);
  }

  async #run(method: MethodName, wire: unknown, deadline: Deadline): Promise<unknown> {
    if (this.#inFlight >= maxInFlight) await this.#queue(deadline);
    else this.#inFlight += 1;
    try {
      return await this.#callRepeating(method, wire, deadline);
    } finally {
      this.#leave();
    }
  }

  async #callRepeating(method: MethodName, wire: unknown, deadline: Deadline): Promise<unknown> {
    let losses = 0;
    for (let tries = 1; ; tries += 1) {
      deadline.check();
      try {
        const connection = this.#current?.isOpen && !this.#closed ? this.#current : await this.#connect(deadline);
        return await connection.call(method, wire, deadline);
      } catch (error) {
        if (isAgentError(error, 'ERR_DISCONNECTED') && error.details.mayHaveRun === true) losses += 1;
        deadline.mayHaveRun = losses > 0;
        if (!this.#retry || this.#closed || losses >= maxLosses || !this.#mayRepeat(method, error)) throw losses > 0 ? rememberRun(error) : error;
        deadline.lastFailure = error;
        await this.#pause(pauseAfter(tries), deadline);
      }
    }
  }

  /** Waits before a new try, until there is no time left or the client is closed. Its timer goes with it: it would keep the process. */
  async #pause(ms: number, deadline: Deadline): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#pauses.add(resolve);
    try {
      await deadline.wait(promise);
    } finally {
      clearTimeout(timer);
      this.#pauses.delete(resolve);
    }
  }

  /** What certainly did not run may always be sent again; what may have run only if twice is as good as once. */
  #mayRepeat(method: MethodName, error: unknown): boolean {
    if (isAgentError(error, 'ERR_SHUTTING_DOWN') || (isAgentError(error, 'ERR_BUSY') && error.details.mayHaveRun === false)) return true;
    if (isAgentError(error, 'ERR_UNREACHABLE')) return this.#current !== undefined;
    return isAgentError(error, 'ERR_DISCONNECTED') && (specs[method].repeatable || error.details.mayHaveRun === false);
  }

  async #connect(deadline: Deadline): Promise<Connection> {
    let current: Promise<Connection> | undefined;
    do {
      if (this.#closed) throw new AgentError('ERR_DISCONNECTED', { mayHaveRun: false, hint: 'The client was closed.' });
      current = this.#connection;
      const known = current && (await deadline.wait(current.catch(() => undefined))); // a failed try is forgotten: this is the next one
      if (known?.isOpen) return known;
    } while (this.#connection !== current); // another call has begun to connect meanwhile
    const opening = openConnection(this.#path, deadline);
    this.#connection = opening;
    const connection = await opening;
    this.#current = connection;
    return connection;
  }

  /** Waits for a place among the calls that run. */
  async #queue(deadline: Deadline): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    try {
      await deadline.wait(promise);
    } catch (error) {
      const index = this.#waiting.indexOf(resolve);
      if (index === -1)
        this.#leave(); // the place was given in the same turn
      else this.#waiting.splice(index, 1);
      throw error;
    }
  }

  /** The place goes straight to the next that waits, if any. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#inFlight -= 1;
  }
}
