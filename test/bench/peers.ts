import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { cleanEnv, TempFolder } from '../kit/agent.ts';

/** A program beside ours, and how its socket is found. */
export interface Peer {
  readonly socketPath: string;
}

const installed = (...paths: string[]): boolean => paths.every((path) => existsSync(path));

/** Starts the programs that ours is measured beside, each in a folder of its own; ends them with itself. */
export class Peers implements AsyncDisposable {
  readonly #folder = new TempFolder();
  readonly #children: ChildProcess[] = [];
  readonly #ends: (() => void)[] = [];
  /** What is not installed. */
  readonly missing: string[] = [];

  /** OpenSSH's agent with a key of each type. */
  async sshAgent(): Promise<(Peer & { keys: Record<'ecdsa' | 'rsa', { publicKey: string; keyType: string }> }) | undefined> {
    if (!installed('/usr/bin/ssh-agent', '/usr/bin/ssh-add', '/usr/bin/ssh-keygen')) return this.#lacks('ssh-agent');
    const socketPath = this.#folder.join('ssh.sock');
    await this.#start('ssh-agent', ['-D', '-a', socketPath], socketPath);
    const make = (type: string, bits: string): { publicKey: string; keyType: string } => {
      const file = this.#folder.join(`id_${type}`);
      execFileSync('ssh-keygen', ['-q', '-t', type, '-b', bits, '-N', '', '-f', file]);
      execFileSync('ssh-add', ['-q', file], { env: cleanEnv({ SSH_AUTH_SOCK: socketPath }), stdio: 'ignore' });
      const [keyType = '', publicKey = ''] = readFileSync(`${file}.pub`, 'utf8').split(' ');
      return { keyType, publicKey };
    };
    return { socketPath, keys: { ecdsa: make('ecdsa', '256'), rsa: make('rsa', '2048') } };
  }

  /** GnuPG's agent with a P-256 key. */
  async gpgAgent(): Promise<(Peer & { keygrip: string }) | undefined> {
    if (!installed('/usr/bin/gpg', '/usr/bin/gpg-agent', '/usr/bin/gpgconf')) return this.#lacks('gpg-agent');
    const home = this.#folder.join('gnupg');
    mkdirSync(home, { mode: 0o700 });
    const env = cleanEnv({ GNUPGHOME: home });
    const ask = (program: string, ...args: string[]): string => execFileSync(program, args, { env, stdio: ['ignore', 'pipe', 'ignore'] }).toString();
    const socketPath = ask('gpgconf', '--list-dirs', 'agent-socket').trim();
    await this.#start('gpg-agent', ['--homedir', home, '--daemon', '--no-detach', 'sleep', 'infinity'], socketPath, env);
    ask('gpg', '--batch', '--passphrase', '', '--quick-gen-key', 'bench', 'nistp256', 'sign', 'never');
    this.#ends.push(() => ask('gpgconf', '--kill', 'gpg-agent')); // it is a child of its own
    const keygrip = /Keygrip = ([0-9A-F]{40})/.exec(ask('gpg', '--with-keygrip', '--list-keys'))?.[1] ?? '';
    return { socketPath, keygrip };
  }

  /** A socket that answers each line with a line of so many bytes. */
  async echo(answerBytes: number): Promise<Peer> {
    const socketPath = this.#folder.join(`echo-${answerBytes}.sock`);
    const program = fileURLToPath(new URL('./echo-server.ts', import.meta.url));
    await this.#start(process.execPath, ['--disable-warning=ExperimentalWarning', program, socketPath, String(answerBytes)], socketPath);
    return { socketPath };
  }

  /** A token served to other processes by p11-kit. @returns the module that leads to it, and what that needs. */
  async p11Kit(module: string, label: string, hsmEnv: NodeJS.ProcessEnv): Promise<{ module: string; env: NodeJS.ProcessEnv } | undefined> {
    const client = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/pkcs11/p11-kit-client.so`;
    if (!installed('/usr/bin/p11-kit', client)) return this.#lacks('p11-kit server');
    const socketPath = this.#folder.join('p11-kit.sock');
    await this.#start('p11-kit', ['server', '-f', '-n', socketPath, '--provider', module, `pkcs11:token=${label}`], socketPath, hsmEnv);
    return { module: client, env: { P11_KIT_SERVER_ADDRESS: `unix:path=${socketPath}` } };
  }

  async #start(program: string, args: readonly string[], socketPath: string, env: NodeJS.ProcessEnv = cleanEnv()): Promise<void> {
    const child = spawn(program, args, { env, stdio: 'ignore' });
    child.on('error', () => undefined); // seen below: there is no socket
    this.#children.push(child);
    for (let left = 200; !existsSync(socketPath); left -= 1) {
      if (left === 0 || child.exitCode !== null) throw new Error(`${program} does not come up`);
      await delay(25);
    }
  }

  #lacks(name: string): undefined {
    this.missing.push(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends) end();
    for (const child of this.#children) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      if (child.exitCode === null && child.kill()) await ended;
    }
    this.#folder[Symbol.dispose]();
  }
}
