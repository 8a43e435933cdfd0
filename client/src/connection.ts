import { connect, type Socket } from 'node:net';
import { AgentError, decodeError, encodeFrame, FrameReader, parseFrame } from '@kms-agent/protocol';
import { JSONRPCClient, type JSONRPCResponse } from 'json-rpc-2.0';
import type { Deadline } from './deadline.ts';

/** Answers are limited by the agent; this only bounds what a wrong peer can make us hold. */
const maxAnswerBytes = 16_777_216;
const maxAnswerDepth = 64;

const unreachable = (cause: unknown): AgentError => new AgentError('ERR_UNREACHABLE', {}, { cause });

/** Connects to an agent's socket. @throws AgentError `ERR_UNREACHABLE`; as the deadline ends. */
export async function openConnection(path: string, deadline: Deadline): Promise<Connection> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect(path);
  socket.once('connect', () => resolve(socket));
  socket.once('error', (error) => reject(unreachable(error)));
  try {
    return new Connection(await deadline.wait(promise));
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function isResponse(value: unknown): value is JSONRPCResponse {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && 'id' in value && ('result' in value || 'error' in value);
}

/** A connection that is turned away has run nothing. */
function aboutStream(error: AgentError): AgentError {
  return error.code === 'ERR_BUSY' ? new AgentError('ERR_BUSY', { ...error.details, mayHaveRun: false }) : error;
}

/** One connection to an agent, with any number of calls under way. The owner of json-rpc-2.0 on this side. */
export class Connection {
  readonly #socket: Socket;
  readonly #reader = new FrameReader({ maxFrameBytes: maxAnswerBytes });
  readonly #rpc: JSONRPCClient;
  #nextId = 1;
  #outgoing: string[] = [];
  #inFlight = 0;
  #failure: AgentError | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#rpc = new JSONRPCClient((request) => this.#write(request));
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', (cause) => this.#fail(cause));
    socket.on('close', () => this.#fail(undefined));
    socket.unref(); // an idle connection keeps no process alive
  }

  /** False once the connection has failed or was closed. */
  get isOpen(): boolean {
    return this.#failure === undefined && !this.#socket.destroyed; // its end is announced only in the next turn
  }

  /**
   * Sends one request and waits for its answer, both in wire form.
   * @throws AgentError as the agent answered; `ERR_DISCONNECTED` with `mayHaveRun`; `ERR_BUSY` with `mayHaveRun: false` when the agent turned the connection away; as the deadline ends.
   */
  async call(method: string, params: unknown, deadline: Deadline): Promise<unknown> {
    if (!this.isOpen) throw new AgentError('ERR_DISCONNECTED', { mayHaveRun: false }, { cause: this.#failure });
    this.#hold(1);
    try {
      deadline.mayHaveRun = true;
      return await deadline.wait(this.#request(method, params));
    } finally {
      this.#hold(-1);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  async #request(method: string, params: unknown): Promise<unknown> {
    const id = this.#nextId++;
    const response = await this.#rpc.requestAdvanced({ jsonrpc: '2.0', id, method, params });
    if (this.#failure)
      throw this.#failure.code === 'ERR_BUSY' ? this.#failure : new AgentError('ERR_DISCONNECTED', { mayHaveRun: true }, { cause: this.#failure });
    if (response.error) throw decodeError(response.error);
    return response.result;
  }

  /** What is called in one turn of the event loop leaves in one write. */
  #write(request: unknown): void {
    if (this.#outgoing.length === 0) process.nextTick(() => this.#flush());
    this.#outgoing.push(encodeFrame(request));
  }

  #flush(): void {
    const frames = this.#outgoing.join('');
    this.#outgoing = [];
    if (!this.#socket.destroyed) this.#socket.write(frames); // else its calls have been told
  }

  #take(chunk: Buffer): void {
    try {
      for (const frame of this.#reader.push(chunk)) this.#receive(parseFrame(frame, maxAnswerDepth));
    } catch (cause) {
      this.#fail(cause);
      this.#socket.destroy();
    }
  }

  /** An answer without an id is about the stream itself: too long a frame, or too many connections. */
  #receive(message: unknown): void {
    if (!isResponse(message)) throw new TypeError('the peer sends no JSON-RPC responses');
    if (message.id === null && message.error) throw aboutStream(decodeError(message.error));
    this.#rpc.receive(message);
  }

  #fail(cause: unknown): void {
    this.#failure ??= cause instanceof AgentError ? cause : new AgentError('ERR_DISCONNECTED', { mayHaveRun: true }, { cause });
    this.#rpc.rejectAllPendingRequests('disconnected');
  }

  #hold(change: 1 | -1): void {
    const wasBusy = this.#inFlight > 0;
    this.#inFlight += change;
    const isBusy = this.#inFlight > 0;
    if (isBusy === wasBusy || this.#socket.destroyed) return; // one that is gone would keep a listener for each
    if (isBusy) this.#socket.ref();
    else this.#socket.unref();
  }
}
