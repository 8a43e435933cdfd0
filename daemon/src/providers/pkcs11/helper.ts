import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { programOf } from '../../os/own-package.ts';
import {
  type CallName,
  type Calls,
  type Failure,
  type HelperEnd,
  type LogInNotice,
  type Reply,
  type Request,
  readyId,
  TokenFailure,
  type TokenInfo,
  type TryNotice,
} from './messages.ts';

const program = programOf('providers/pkcs11/process/main');

/** How long the end of a process is waited for; one that the kernel holds, in a driver, cannot be ended at all. */
const killTimeoutMs = 1000;

/** Milliseconds that a process may take to start: on a busy host that takes longer than a call may. */
const startTimeoutMs = 10_000;

/** Calls that send a PIN. */
const logIns: ReadonlySet<CallName> = new Set(['open', 'recover']);

interface Waiting {
  readonly call: CallName;
  readonly timeoutMs: number;
  readonly resolve: (result: never) => void;
  readonly reject: (error: TokenFailure) => void;
  timer?: NodeJS.Timeout;
}

function start(sessions: number): ChildProcess {
  const env = { ...process.env, UV_THREADPOOL_SIZE: String(sessions + 2) }; // a vendor's module has its own variables
  try {
    return spawn(process.execPath, ['--disable-sigusr1', '--no-warnings', program, String(process.pid)], {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'], // what a module prints may be what no log should hold
      serialization: 'advanced',
      env,
    });
  } catch (error) {
    throw new TokenFailure({ kind: 'fault', rv: error instanceof Error ? error.message : String(error), call: 'spawn' });
  }
}

/** A helper process: calls go in, answers come out, and a module that hangs or crashes takes nothing but the helper with it. */
export class HelperProcess {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  readonly #gone: Promise<void>;
  readonly #starting: NodeJS.Timeout;
  #isReady = false;
  /** It ran when we ended it: it did not die. */
  #isUnwanted = false;
  /** It has sent a PIN, and not heard what the token says. */
  #isLoggingIn = false;
  #hasSentPin = false;
  #taker: TokenInfo | undefined;
  #trying: string | undefined;
  #lastId = 0;
  #openSessions = 0;

  /** @param sessions - calls that run side by side. @param onGone - hears of it when the process dies by itself, with why. @throws TokenFailure of kind `fault` when no process can be started. */
  constructor(sessions: number, onGone: (why: string) => void = () => undefined) {
    this.#child = start(sessions);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gone = promise;
    this.#starting = setTimeout(() => this.#giveUp('the helper does not start'), startTimeoutMs).unref();
    this.#child.on('message', (message: Reply | LogInNotice | TryNotice) => this.#take(message));
    this.#child.on('error', (error) => {
      this.#fail(error.message);
      if (this.#child.pid === undefined) resolve(); // it was never there, and so never ends
    });
    this.#child.on('exit', (code, signal) => {
      const why = `the helper ended with ${signal ?? code}`;
      this.#fail(why, this.#isUnwanted ? 'ended' : 'died');
      resolve();
      if (!this.#isUnwanted) onGone(why);
    });
  }

  get isRunning(): boolean {
    const { pid, exitCode, signalCode, killed, connected } = this.#child;
    return pid !== undefined && exitCode === null && signalCode === null && !killed && connected;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get hasSentPin(): boolean {
    return this.#hasSentPin;
  }

  /** The token that took the PIN that was sent last. */
  get taker(): TokenInfo | undefined {
    return this.#taker;
  }

  /** What it has tried out last. */
  get trying(): string | undefined {
    return this.#trying;
  }

  /** Sessions of its token, as its last answer had it. */
  get openSessions(): number {
    return this.isRunning ? this.#openSessions : 0;
  }

  get inFlight(): number {
    return this.#waiting.size;
  }

  /** @throws TokenFailure; kind `fault` when the helper ended, or did not answer in time, which ends it. */
  ask<C extends CallName>(call: C, params: Calls[C]['takes'], timeoutMs: number): Promise<Calls[C]['gives']> {
    const { promise, resolve, reject } = Promise.withResolvers<Calls[C]['gives']>();
    this.#lastId += 1;
    const id = this.#lastId;
    const waiting: Waiting = { call, timeoutMs, resolve, reject };
    this.#waiting.set(id, waiting);
    if (this.#isReady) this.#startClock(id, waiting);
    if (!this.isRunning) this.#failOne(id, 'the helper has ended', 'ended');
    else this.#child.send({ id, call, params } satisfies Request<C>, (error) => error && this.#failOne(id, error.message, 'ended')); // what else it has ends with it
    return promise;
  }

  /** Ends the process, however it is; what it was asked fails. */
  async kill(): Promise<void> {
    this.#isUnwanted ||= this.isRunning;
    this.#child.kill('SIGKILL');
    const waiting = new AbortController();
    const late = delay(killTimeoutMs, undefined, { ref: false, signal: waiting.signal }).catch(() => undefined); // cut short when it is gone
    await Promise.race([this.#gone, late]);
    waiting.abort();
    this.#fail('the helper was ended');
  }

  /** A call's time begins when the process is there that it is for. */
  #startClock(id: number, waiting: Waiting): void {
    clearTimeout(waiting.timer);
    waiting.timer = setTimeout(() => this.#giveUp(`no answer for ${waiting.timeoutMs} ms`, id), waiting.timeoutMs);
  }

  /** @param late - the call that did not end in time. */
  #giveUp(why: string, late?: number): void {
    if (late !== undefined) this.#failOne(late, why, 'late');
    this.#fail(why);
    void this.kill();
  }

  #beReady(): void {
    this.#isReady = true;
    clearTimeout(this.#starting);
    for (const [id, waiting] of this.#waiting) this.#startClock(id, waiting);
  }

  /** A log-in has the whole time of a call for itself: one that is cut off counts as refused. */
  #noteLogIn({ isLoggingIn, taker }: LogInNotice): void {
    this.#isLoggingIn = isLoggingIn;
    this.#hasSentPin = true;
    this.#taker = taker;
    for (const [id, waiting] of this.#waiting) if (logIns.has(waiting.call)) this.#startClock(id, waiting);
  }

  #take(reply: Reply | LogInNotice | TryNotice): void {
    if ('isLoggingIn' in reply) {
      this.#noteLogIn(reply);
      return;
    }
    if ('trying' in reply) {
      this.#trying = reply.trying;
      return;
    }
    this.#openSessions = reply.openSessions;
    if (reply.id === readyId) this.#beReady();
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return; // it was ready, or came too late
    this.#waiting.delete(reply.id);
    clearTimeout(waiting.timer);
    if ('failure' in reply) waiting.reject(new TokenFailure(reply.failure));
    else waiting.resolve(reply.result as never); // as its call gives
  }

  #fail(why: string, helper: HelperEnd = 'ended'): void {
    clearTimeout(this.#starting);
    for (const id of this.#waiting.keys()) this.#failOne(id, why, helper);
  }

  #failOne(id: number, why: string, helper: HelperEnd): void {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    waiting.reject(new TokenFailure(this.#lossOf(waiting.call, why, helper)));
  }

  /** What a lost helper means for a call. A log-in that was cut off is as good as refused: some tokens answer a wrong PIN late, on purpose. */
  #lossOf(call: CallName, why: string, helper: HelperEnd): Failure {
    return this.#isLoggingIn && logIns.has(call) ? { kind: 'logIn', rv: why } : { kind: 'fault', rv: why, call, helper };
  }
}
