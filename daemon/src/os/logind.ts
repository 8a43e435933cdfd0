import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { programOf } from './own-package.ts';

/** A session of the agent's user. */
export interface Screen {
  /** Its object path. */
  readonly path: string;
  readonly locked: boolean;
}

/** What the process that listens says, a line each. */
export type LogindLine =
  | { readonly event: 'absent' | 'suspend' }
  /** logind is there, and lets a suspension wait for at most `delayMs`; `undelayed` says why it does not. How everything is now. */
  | { readonly event: 'ready'; readonly delayMs: number; readonly undelayed?: string; readonly screens: readonly Screen[]; readonly isSleeping: boolean }
  /** Somebody asks a session to lock, or to unlock. */
  | { readonly event: 'lock' | 'unlock' }
  /** A session changed. */
  | { readonly event: 'screen'; readonly screen: Screen };

/** Exit status of the process where it could never do its work: there is no libsystemd. */
export const exitForGood = 3;

export interface LogindOptions {
  readonly onSuspend: boolean;
  readonly onScreenLock: boolean;
  /** The machine is about to be suspended; it waits until this is done, for at most so many milliseconds. */
  readonly suspending: (delayMs: number) => Promise<void>;
  readonly screenLocked: () => void;
  readonly screenUnlocked: () => void;
  /** Hears of each change, and why logind is out of reach; undefined when it is there and suspension waits. */
  readonly onReach: (trouble: string | undefined) => void;
}

const program = programOf('os/logind-process');
const firstBackoffMs = 500;
const longestBackoffMs = 60_000;
/** Bytes of what the process complained of that are kept. */
const keptOutput = 4096;

/** Whether there is a system bus at all. Without one no process is started. */
const hasBus = (): boolean => Boolean(process.env['DBUS_SYSTEM_BUS_ADDRESS']) || existsSync('/run/dbus/system_bus_socket');

/** The one line of a crash report that says what happened. */
const reasonIn = (printed: string): string => /^\w*Error: (.*)$/m.exec(printed)?.[1] ?? 'its process ended';

/** Tells of suspension and of locked screens, by way of a process of its own that is started anew when it ends. */
export class Logind {
  readonly #options: LogindOptions;
  /** Paths of sessions that were last seen locked; undefined before any was seen. */
  #locked: Set<string> | undefined;
  #child: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #backoffMs = firstBackoffMs;
  #delayMs = 0;
  #isClosed = false;
  #trouble: string | undefined = 'it was not looked for yet';

  constructor(options: LogindOptions) {
    this.#options = options;
    this.#start();
  }

  /** Why logind is out of reach; undefined when it is there and suspension waits for the agent. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Ends the process. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    child.on('close', () => resolve());
    child.kill('SIGKILL');
    await promise;
  }

  #start(): void {
    if (hasBus()) this.#spawn();
    else this.#retry('there is no system bus');
  }

  #spawn(): void {
    const { onSuspend, onScreenLock } = this.#options;
    const wanted = [...(onSuspend ? ['suspend'] : []), ...(onScreenLock ? ['screenLock'] : [])];
    const address = process.env['DBUS_SYSTEM_BUS_ADDRESS'];
    const child = spawn(process.execPath, ['--disable-sigusr1', '--no-warnings', program, String(process.pid), ...wanted], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: address === undefined ? {} : { DBUS_SYSTEM_BUS_ADDRESS: address },
    });
    this.#child = child;
    let complaints = '';
    child.stderr.on('data', (chunk: Buffer) => {
      complaints = (complaints + chunk.toString()).slice(-keptOutput);
    });
    child.stdin.on('error', () => undefined); // it has ended; its end says why
    child.on('error', (error) => this.#retry(error.message));
    child.on('close', (code) => (code === exitForGood ? this.#reach(reasonIn(complaints)) : this.#retry(reasonIn(complaints))));
    createInterface({ input: child.stdout }).on('line', (line) => this.#take(child, JSON.parse(line) as LogindLine)); // written by logind-process.ts
  }

  #retry(trouble: string): void {
    if (this.#isClosed) return;
    this.#reach(trouble);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#start(), this.#backoffMs);
    this.#timer.unref();
    this.#backoffMs = Math.min(this.#backoffMs * 2, longestBackoffMs);
  }

  #reach(trouble: string | undefined): void {
    if (trouble === this.#trouble) return;
    this.#trouble = trouble;
    this.#options.onReach(trouble);
  }

  #take(child: ChildProcess, line: LogindLine): void {
    if (line.event === 'absent') this.#reach('it is not on the system bus');
    else if (line.event === 'ready') this.#begin(child, line);
    else if (line.event === 'suspend') this.#suspend(child);
    else if (line.event === 'lock') this.#options.screenLocked();
    else if (line.event === 'unlock') this.#options.screenUnlocked();
    else if (line.event === 'screen') this.#follow(line.screen);
  }

  /** What happened while nobody listened is noticed: a screen that was open and is locked or the other way round, a machine that is on its way to sleep. */
  #begin(child: ChildProcess, { delayMs, undelayed, screens, isSleeping }: LogindLine & { event: 'ready' }): void {
    this.#backoffMs = firstBackoffMs;
    this.#delayMs = delayMs;
    this.#reach(undelayed === undefined ? undefined : `suspension does not wait: ${undelayed}`);
    if (isSleeping) this.#suspend(child);
    const known = this.#locked;
    this.#locked = new Set(known);
    if (known) for (const screen of screens) this.#follow(screen);
    this.#locked = new Set(screens.filter(({ locked }) => locked).map(({ path }) => path));
  }

  #follow({ path, locked }: Screen): void {
    const wasLocked = this.#locked?.has(path) ?? false;
    if (locked) this.#locked?.add(path);
    else this.#locked?.delete(path);
    if (locked && !wasLocked) this.#options.screenLocked();
    if (!locked && wasLocked) this.#options.screenUnlocked();
  }

  #suspend(child: ChildProcess): void {
    const { suspending } = this.#options;
    suspending(this.#delayMs).then(
      () => child.stdin?.write('locked\n'),
      () => undefined, // the agent leaves, because it may still hold keys; the machine sleeps when it is gone
    );
  }
}
