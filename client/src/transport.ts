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
import { type CallLimits, type Connection, openConnection } from './connection.ts';

/** How a client connects; every field has a default. */
export interface ConnectOptions {
  /** Default: `KMS_AGENT_SOCK`, else the user's agent if there is one, else the system's. */
  readonly socketPath?: string;
  /** Milliseconds that a call may take; default 30,000. */
  readonly timeoutMs?: number;
  /** Whether to connect again and repeat what may be repeated after a disconnect; default true. */
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
/** Pauses before a new try after a disconnect: a restart of the agent takes about a second. */
const retryPausesMs = [50, 200, 500, 1000, 2000] as const;

/** @throws TypeError for a field that is there and undefined: an unset variable must not silently mean the default key. */
function refuseUndefined(method: string, params: object): void {
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined) throw new TypeError(`${method}: ${name} is undefined; leave it out if it is not wanted`);
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Carries typed calls over a connection that comes back by itself. */
export class Transport {
  readonly #path: string;
  readonly #timeoutMs: number;
  readonly #retry: boolean;
  readonly #waiting: (() => void)[] = [];
  #connection: Promise<Connection> | undefined;
  #inFlight = 0;
  #closed = false;

  constructor({ socketPath, timeoutMs = defaultTimeoutMs, retry = true }: ConnectOptions) {
    this.#path = findSocket(socketPath).path;
    this.#timeoutMs = timeoutMs;
    this.#retry = retry;
  }

  /** @throws AgentError `ERR_UNREACHABLE`, `ERR_TIMEOUT`; the signal's reason. */
  async open(signal?: AbortSignal): Promise<void> {
    await this.#connect({ timeoutMs: this.#timeoutMs, ...(signal ? { signal } : {}) });
  }

  /** Runs a method. @throws TypeError for an undefined field; AgentError as the agent answers, or `ERR_TIMEOUT`, `ERR_DISCONNECTED`, `ERR_UNREACHABLE`. */
  async call<M extends MethodName>(method: M, params: MethodParams<M>, { signal, timeoutMs = this.#timeoutMs }: CallOptions = {}): Promise<MethodResult<M>> {
    refuseUndefined(method, params);
    const wire = encodeParams(method, params);
    const limits = { timeoutMs, ...(signal ? { signal } : {}) };
    await this.#enter();
    try {
      return decodeResult(method, await this.#callRepeating(method, wire, limits));
    } finally {
      this.#leave();
    }
  }

  close(): void {
    this.#closed = true;
    const ignore = (): void => undefined; // whoever was connecting has been told
    this.#connection?.then((connection) => connection.close(), ignore);
  }

  async #callRepeating(method: MethodName, wire: unknown, limits: CallLimits): Promise<unknown> {
    const pauses = this.#retry ? [...retryPausesMs] : [];
    for (;;) {
      try {
        const connection = await this.#connect(limits);
        return await connection.call(method, wire, limits);
      } catch (error) {
        const pauseMs = this.#mayRepeat(method, error) ? pauses.shift() : undefined;
        if (pauseMs === undefined || this.#closed) throw error;
        await pause(pauseMs);
      }
    }
  }

  /** What certainly did not run may always be sent again; what may have run only if twice is as good as once. */
  #mayRepeat(method: MethodName, error: unknown): boolean {
    if (isAgentError(error, 'ERR_SHUTTING_DOWN')) return true;
    if (isAgentError(error, 'ERR_UNREACHABLE')) return this.#everConnected;
    return isAgentError(error, 'ERR_DISCONNECTED') && (specs[method].repeatable || error.details.mayHaveRun === false);
  }

  #everConnected = false;

  async #connect(limits: CallLimits): Promise<Connection> {
    if (this.#closed) throw new AgentError('ERR_DISCONNECTED', { mayHaveRun: false, hint: 'The client was closed.' });
    let current: Promise<Connection> | undefined;
    do {
      current = this.#connection;
      const known = await current?.catch(() => undefined); // a failed try is forgotten: this is the next one
      if (known?.isOpen) return known;
    } while (this.#connection !== current); // another call has begun to connect meanwhile
    const opening = openConnection(this.#path, limits);
    this.#connection = opening;
    const connection = await opening;
    this.#everConnected = true;
    return connection;
  }

  async #enter(): Promise<void> {
    if (this.#inFlight >= maxInFlight) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#inFlight += 1;
  }

  /** The place goes straight to the next that waits, if any. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#inFlight -= 1;
  }
}
