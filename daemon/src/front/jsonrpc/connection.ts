import type { Socket } from 'node:net';
import { finished } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AgentError, encodeFrame, FrameReader, FrameTooLargeError, isAgentError } from '@kms-agent/protocol';
import type { Peer } from '../../caller/identity.ts';
import type { BusyPoll } from '../busy-poll.ts';
import { checkEnvelope, type Response } from './envelope.ts';
import { parseRequest } from './secrets.ts';
import type { RpcServer } from './server.ts';

/** Limits of one connection; each is a setting of the same name. */
export interface FrontLimits {
  /** Longest frame in bytes, requests and answers. */
  readonly maxFrameBytes: number;
  /** Deepest nesting of JSON. */
  readonly maxDepth: number;
  /** Requests that run at a time on one connection; beyond it the agent stops reading. */
  readonly maxInFlight: number;
  /** Requests in one batch. */
  readonly maxBatch: number;
  /** Bytes of answers that may wait for a peer that does not read; beyond it the agent stops reading. */
  readonly maxUnreadBytes: number;
  /** Milliseconds that a peer may leave its answers unread before the connection is closed. */
  readonly stalledReaderMs: number;
}

/** Bytes of UTF-8 that a character of a string takes at most. */
const utf8Most = 3;

/** Bytes that an error response may take, for what does not fit into a batch's answer. */
const errorReserveBytes = 600;

/** A frame whose requests are to run: they, whether they came as a batch, and the responses of those that have been started, in the same order. */
interface Pending {
  readonly entries: readonly unknown[];
  readonly batch: boolean;
  readonly responses: Promise<Response | undefined>[];
}

/** Milliseconds of one turn of the event loop that one connection may start requests in, or encode a batch in: most requests take microseconds of it. */
const sliceMs = 0.5;

/** Milliseconds that a peer has at the end of the agent to close its side when all that it asked is answered and has left: what it sends meanwhile is dropped. */
const lingerMs = 100;

/** One peer on a socket: cuts its stream into requests, keeps the limits, and writes answers once per turn of the event loop. */
export class Connection {
  #sliceStart: number | undefined;
  readonly #socket: Socket;
  readonly #peer: Peer;
  readonly #server: RpcServer;
  readonly #limits: FrontLimits;
  readonly #busyPoll: BusyPoll;
  readonly #reader: FrameReader;
  readonly #frames: Buffer[] = [];
  #held: Pending | undefined;
  #inFlight = 0;
  #outgoing: string[] = [];
  #outgoingChars = 0;
  #ended = false;
  #refused = false;
  #isLeaving = false;
  #stallTimer: NodeJS.Timeout | undefined;

  constructor(socket: Socket, peer: Peer, server: RpcServer, limits: FrontLimits, busyPoll: BusyPoll) {
    this.#socket = socket;
    this.#peer = peer;
    this.#server = server;
    this.#limits = limits;
    this.#busyPoll = busyPoll;
    this.#reader = new FrameReader(limits);
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('drain', () => this.#resume());
    socket.on('end', () => {
      this.#ended = true;
      this.#finish();
    });
    socket.on('close', () => clearTimeout(this.#stallTimer));
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Answers what runs, then closes; a moment later also towards a peer that does not: idle, or with half a frame, it is owed nothing. */
  end(): void {
    this.#ended = true;
    this.#isLeaving = true; // what still comes is read, and refused or dropped: the end of the peer is behind it
    this.#resume();
    finished(this.#socket, { readable: false }, () => setTimeout(() => this.#socket.destroy(), lingerMs));
  }

  #take(chunk: Buffer): void {
    this.#busyPoll.noteRequest();
    if (this.#refused || (this.#isLeaving && !this.#socket.writable)) return;
    try {
      this.#frames.push(...this.#reader.push(chunk));
    } catch (error) {
      if (!(error instanceof FrameTooLargeError)) throw error;
      this.#frames.push(...error.complete);
      this.#refuseStream(error);
    }
    this.#resume();
  }

  /** Nothing in the stream can be trusted any more: answers, then reads and drops the rest until the peer has seen it. */
  #refuseStream(error: AgentError): void {
    this.#refused = true;
    this.#ended = true;
    this.#refuse(error);
    this.#stallTimer ??= setTimeout(() => this.#socket.destroy(), this.#limits.stalledReaderMs).unref();
  }

  /** Answers that the peer has not taken yet are more than may wait. Those of this turn count: they are written at its end. */
  get #isFull(): boolean {
    return this.#socket.writableLength + this.#outgoingChars > this.#limits.maxUnreadBytes;
  }

  /** Starts what may run now, and reads on only if nothing waits and the peer takes its answers. */
  #resume(): void {
    while (this.#startNext());
    if (this.#held || this.#frames.length > 0 || this.#isFull) this.#socket.pause();
    else if (!this.#ended || this.#refused || this.#isLeaving) this.#socket.resume();
    this.#watchStall();
    this.#finish();
  }

  /** Whether this connection has had its share of the turn; the rest of what it asks waits for the next one, and others come between. */
  get #isSpent(): boolean {
    if (this.#sliceStart === undefined) {
      this.#sliceStart = performance.now();
      setImmediate(() => {
        const isWaiting = performance.now() - (this.#sliceStart ?? 0) > sliceMs;
        this.#sliceStart = undefined;
        if (isWaiting) this.#resume();
      });
    }
    return performance.now() - this.#sliceStart > sliceMs;
  }

  #startNext(): boolean {
    if (this.#isFull || (!this.#held && this.#frames.length === 0) || this.#isSpent) return false;
    const frame = this.#held ? undefined : this.#frames.shift();
    this.#held ??= frame && this.#parse(frame);
    if (!this.#held) return frame !== undefined;
    return this.#startEntry(this.#held);
  }

  /** Starts the next request of a frame. All of them count as running from the first that starts until the frame is answered. */
  #startEntry(held: Pending): boolean {
    const { entries, responses } = held;
    if (responses.length === 0) {
      if (this.#inFlight > 0 && this.#inFlight + entries.length > this.#limits.maxInFlight) return false;
      this.#inFlight += entries.length;
    }
    responses.push(this.#runEntry(entries[responses.length]).catch((error: Error) => this.#fail(error)));
    if (responses.length < entries.length) return true;
    this.#held = undefined;
    void this.#answer(held).catch((error: Error) => this.#fail(error));
    return true;
  }

  /** Nothing of a request rejects; if it does, this peer alone loses its connection. */
  #fail(error: Error): undefined {
    this.#socket.destroy(error);
  }

  #parse(frame: Buffer): Pending | undefined {
    try {
      const value = parseRequest(frame, this.#limits.maxDepth);
      if (!Array.isArray(value)) return { entries: [value], batch: false, responses: [] };
      if (value.length === 0) throw new AgentError('ERR_INVALID_REQUEST');
      if (value.length > this.#limits.maxBatch) throw new AgentError('ERR_TOO_LARGE', { hint: `A batch has at most ${this.#limits.maxBatch} requests.` });
      return { entries: value, batch: true, responses: [] };
    } catch (error) {
      if (!isAgentError(error)) throw error;
      this.#refuse(error);
      return undefined;
    }
  }

  async #answer({ entries, batch, responses }: Pending): Promise<void> {
    try {
      if (batch) {
        const answered = (await Promise.all(responses)).filter((response) => response !== undefined);
        if (answered.length > 0) this.#write(await this.#encodeBatch(answered));
      } else {
        const response = await responses[0];
        if (response) this.#write(await this.#encodeOne(response));
      }
    } finally {
      this.#inFlight -= entries.length;
    }
    this.#resume();
  }

  async #runEntry(entry: unknown): Promise<Response | undefined> {
    try {
      return await this.#server.receive(checkEnvelope(entry), this.#peer.caller());
    } catch (error) {
      if (!isAgentError(error)) throw error;
      return await this.#server.refuse(this.#peer.caller(), error);
    }
  }

  #encodeOne(response: Response): string | Promise<string> {
    const frame = encodeFrame(response);
    const { maxFrameBytes } = this.#limits;
    if (frame.length * utf8Most <= maxFrameBytes || Buffer.byteLength(frame) <= maxFrameBytes) return frame;
    return this.#server.refuse(this.#peer.caller(), new AgentError('ERR_TOO_LARGE'), response.id).then(encodeFrame);
  }

  /** What does not fit into the frame is answered ERR_TOO_LARGE in its place. Takes as many turns as it needs. */
  async #encodeBatch(responses: readonly Response[]): Promise<string> {
    let free = this.#limits.maxFrameBytes - responses.length * errorReserveBytes;
    const texts: string[] = [];
    let startMs = performance.now(); // its own slice: a short answer is not held back by what is started beside it
    for (const response of responses) {
      if (performance.now() - startMs > sliceMs) {
        await nextTurn();
        startMs = performance.now();
      }
      const text = JSON.stringify(response);
      const bytes = Buffer.byteLength(text) + 1 - errorReserveBytes;
      const fits = bytes <= free;
      if (fits) free -= bytes;
      texts.push(fits ? text : JSON.stringify(await this.#server.refuse(this.#peer.caller(), new AgentError('ERR_TOO_LARGE'), response.id)));
    }
    return `[${texts.join(',')}]\n`;
  }

  /** Answers what never became a request; it counts as one that runs until its refusal is recorded. */
  #refuse(error: AgentError): void {
    this.#inFlight += 1;
    void this.#server
      .refuse(this.#peer.caller(), error)
      .then((response) => this.#write(encodeFrame(response)))
      .catch((cause: Error) => this.#socket.destroy(cause))
      .finally(() => {
        this.#inFlight -= 1;
        this.#finish();
      });
  }

  #write(frame: string): void {
    this.#outgoing.push(frame);
    this.#outgoingChars += frame.length;
    if (this.#outgoing.length === 1) process.nextTick(() => this.#flush()); // all that were recorded together are answered in one tick
  }

  #flush(): void {
    const text = this.#outgoing.join('');
    this.#outgoing = [];
    this.#outgoingChars = 0;
    if (!this.#socket.destroyed && this.#socket.writable) {
      this.#socket.write(text);
      this.#busyPoll.noteAnswers();
    }
    this.#resume();
  }

  #watchStall(): void {
    if (this.#refused) return;
    if (!this.#isFull) {
      clearTimeout(this.#stallTimer);
      this.#stallTimer = undefined;
    }
    if (this.#isFull) this.#stallTimer ??= setTimeout(() => this.#socket.destroy(), this.#limits.stalledReaderMs).unref();
  }

  /** Ends the socket when the peer has ended and everything it asked for is answered. */
  #finish(): void {
    const idle = this.#inFlight === 0 && this.#outgoing.length === 0 && this.#frames.length === 0 && !this.#held;
    if (this.#ended && idle && this.#socket.writable) this.#socket.end();
  }
}
