import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { cleanEnv, repository, type TempFolder } from './agent.ts';

/** The session bus does not start for a uid without a name. */
function hasName(): boolean {
  try {
    return userInfo().username !== '';
  } catch {
    return false;
  }
}

/** A real keyring needs these Debian packages, keytar compiled, and a user with a name. */
export const hasKeyring =
  hasName() &&
  ['/usr/bin/gnome-keyring-daemon', '/usr/bin/dbus-daemon', join(repository, 'node_modules/keytar/build/Release/keytar.node')].every((path) =>
    existsSync(path),
  );

async function waitFor(path: string): Promise<void> {
  for (let waited = 0; !existsSync(path); waited += 10) {
    if (waited > 10_000) throw new Error(`${path} did not appear`);
    await delay(10);
  }
}

/** A session bus and a gnome-keyring of a test's own, unlocked with a password. */
export class SecretService implements AsyncDisposable {
  readonly env: NodeJS.ProcessEnv;
  readonly #children: ChildProcess[] = [];

  private constructor(env: NodeJS.ProcessEnv) {
    this.env = env;
  }

  /** @param isLocked - nobody gave the password: what was stored before cannot be had. */
  static async start(folder: TempFolder, { password = 'pw', isLocked = false } = {}): Promise<SecretService> {
    const [home, runtime] = [folder.join('home'), folder.join('run')];
    for (const path of [home, runtime]) if (!existsSync(path)) mkdirSync(path, { mode: 0o700 });
    const bus = join(runtime, 'bus');
    const service = new SecretService({ HOME: home, XDG_RUNTIME_DIR: runtime, DBUS_SESSION_BUS_ADDRESS: `unix:path=${bus}` });
    service.#spawn('dbus-daemon', '--session', '--nofork', '--nopidfile', `--address=unix:path=${bus}`);
    await waitFor(bus);
    const keyring = service.#spawn('gnome-keyring-daemon', '--foreground', ...(isLocked ? [] : ['--unlock']), '--components=secrets');
    keyring.stdin?.end(password);
    await waitFor(join(home, '.local/share/keyrings'));
    await delay(200); // until it has its name on the bus
    return service;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill();
      await gone;
    }
  }

  #spawn(program: string, ...args: string[]): ChildProcess {
    const child = spawn(program, args, { env: cleanEnv(this.env), stdio: ['pipe', 'ignore', 'ignore'] });
    this.#children.push(child);
    return child;
  }
}
