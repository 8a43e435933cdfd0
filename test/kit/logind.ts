import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { cleanEnv, type TempFolder } from './agent.ts';

/** A bus and a logind of a test's own need these Debian packages. */
export const hasLogindKit =
  ['/usr/bin/dbus-daemon', '/usr/bin/dbus-send', '/usr/bin/python3'].every((path) => existsSync(path)) &&
  spawnSync('/usr/bin/python3', ['-c', 'import dbus, gi'], { stdio: 'ignore' }).status === 0;

/** What the test's logind says. */
export interface LogindEvent {
  readonly event: 'ready' | 'done' | 'inhibit' | 'released';
  readonly what?: string;
  readonly who?: string;
  readonly mode?: string;
  readonly sender?: string;
}

async function endOf(child: ChildProcess | undefined): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill();
  await gone;
}

/** A system bus in a folder. */
export class TestBus implements AsyncDisposable {
  readonly address: string;
  readonly #path: string;
  readonly #config: string;
  #daemon: ChildProcess | undefined;

  constructor(folder: TempFolder) {
    this.#path = folder.join('bus');
    this.address = `unix:path=${this.#path}`;
    this.#config = folder.join('bus.conf');
    const policy = '<allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>';
    const bus = `<type>system</type><listen>${this.address}</listen><auth>EXTERNAL</auth><policy context="default">${policy}</policy>`;
    writeFileSync(
      this.#config,
      `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "busconfig.dtd"><busconfig>${bus}</busconfig>`,
    );
  }

  async start(): Promise<void> {
    this.#daemon = spawn('dbus-daemon', [`--config-file=${this.#config}`, '--nofork', '--nopidfile'], { env: cleanEnv(), stdio: 'ignore' });
    for (let waited = 0; !existsSync(this.#path); waited += 10) {
      if (waited > 10_000) throw new Error('the bus did not start');
      await delay(10);
    }
  }

  /** The bus goes away, and everybody's connection with it. */
  async stop(): Promise<void> {
    await endOf(this.#daemon);
  }

  /** Sends a signal to one connection, as anybody may. */
  forge(to: string, path: string, member: string, ...args: string[]): void {
    execFileSync('dbus-send', [`--bus=${this.address}`, '--type=signal', `--dest=${to}`, path, member, ...args], { env: cleanEnv() });
  }

  /** Waits until a connection has taken everything that came before. */
  ping(to: string): void {
    execFileSync('dbus-send', [`--bus=${this.address}`, '--print-reply', `--dest=${to}`, '/', 'org.freedesktop.DBus.Peer.Ping'], { env: cleanEnv() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** A logind on a bus, that does as it is told. */
export class TestLogind implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #events: LogindEvent[] = [];
  readonly #waiting: (() => void)[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    if (!child.stdout) throw new TypeError('logind has no output');
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#events.push(JSON.parse(line) as LogindEvent);
      for (const resume of this.#waiting.splice(0)) resume();
    });
  }

  static async start(bus: TestBus): Promise<TestLogind> {
    const program = fileURLToPath(new URL('./logind.py', import.meta.url));
    const env = cleanEnv({ DBUS_SYSTEM_BUS_ADDRESS: bus.address });
    const logind = new TestLogind(spawn('/usr/bin/python3', [program], { env, stdio: ['pipe', 'pipe', 'inherit'] }));
    await logind.next('ready');
    return logind;
  }

  /** The next event of a kind; those before it stay. */
  async next(kind: LogindEvent['event']): Promise<LogindEvent> {
    for (;;) {
      const index = this.#events.findIndex(({ event }) => event === kind);
      const [found] = index < 0 ? [] : this.#events.splice(index, 1);
      if (found) return found;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Whether an event of a kind has come and was not taken yet. */
  has(kind: LogindEvent['event']): boolean {
    return this.#events.some(({ event }) => event === kind);
  }

  /** Carries out a command; @see logind.py. */
  async tell(command: string): Promise<void> {
    this.#child.stdin?.write(`${command}\n`);
    await this.next('done');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await endOf(this.#child);
  }
}
