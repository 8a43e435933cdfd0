import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { cleanEnv, repository, type TempFolder } from './agent.ts';

const script = fileURLToPath(new URL('./systemd-container.sh', import.meta.url));
const isRoot = process.getuid?.() === 0;

type Backend = 'nspawn' | 'unshare';

/** How a systemd can be booted here, best first; none without root, systemd, or the right to make namespaces. */
export const systemdBackends: readonly Backend[] = findBackends();

function findBackends(): readonly Backend[] {
  const mayBoot = isRoot && existsSync('/usr/lib/systemd/systemd') && spawnSync('unshare', ['--mount', '--pid', '--fork', 'true']).status === 0;
  if (!mayBoot) return [];
  return existsSync('/usr/bin/systemd-nspawn') ? ['nspawn', 'unshare'] : ['unshare'];
}

/** What a container is booted with. */
export interface BootOptions {
  /** Folders of this machine, read-only, as FROM:TO. */
  readonly binds?: readonly string[];
  /** Environment of PID 1. */
  readonly env?: readonly string[];
}

/** What a command in the container left. */
export interface ContainerResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The first child of a process; its pid stands in /proc as this process sees it. */
const childOf = (pid: number): string => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0] ?? '';

/** A real systemd as PID 1, over a copy of this machine that lives in memory. The sources of this repository are not in it. */
export class SystemdContainer implements AsyncDisposable {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #enter: readonly string[];

  private constructor(child: ChildProcessWithoutNullStreams, leader: string) {
    this.#process = child;
    const namespaces = childOf(child.pid === undefined ? 0 : Number(childOf(child.pid)));
    this.#enter = ['-t', namespaces, '-m', '-p', '--', 'nsenter', '-a', '-t', leader, 'env', '-i', path, 'HOME=/root', 'LANG=C.UTF-8'];
  }

  /** Boots with the first backend that can. @throws Error with what each complained of. */
  static async boot(options: BootOptions, backends: readonly Backend[] = systemdBackends): Promise<SystemdContainer> {
    const complaints: string[] = [];
    for (const backend of backends) {
      const booted = await SystemdContainer.#bootWith(backend, options);
      if (booted instanceof SystemdContainer) return booted;
      complaints.push(`${backend}: ${booted}`);
    }
    throw new Error(`no container boots: ${complaints.join('; ')}`);
  }

  /** @returns what it complained of when it does not boot. */
  static async #bootWith(backend: Backend, { binds = [], env = [] }: BootOptions): Promise<SystemdContainer | string> {
    const options = [...binds.flatMap((bind) => ['--bind', bind]), ...env.flatMap((variable) => ['--env', variable]), '--hide', repository.replace(/\/$/, '')];
    const child = spawn('bash', [script, backend, ...options], { env: { PATH: process.env['PATH'] } });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    for await (const line of createInterface({ input: child.stdout })) {
      const leader = /^leader (\d+)$/.exec(line)?.[1];
      if (leader !== undefined) return new SystemdContainer(child, leader);
    }
    return said;
  }

  /** Runs a command as root. @param input - its standard input. */
  async run(command: readonly string[], { input = '', timeoutMs = 120_000 }: { input?: string; timeoutMs?: number } = {}): Promise<ContainerResult> {
    const child = spawn('nsenter', [...this.#enter, ...command], { timeout: timeoutMs, killSignal: 'SIGKILL' });
    const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.stdin.on('error', () => undefined); // it may end without reading
    child.stdin.end(input);
    const [code] = (await once(child, 'close')) as [number | null]; // as node:child_process documents it
    return { code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
  }

  /** Runs lines of shell. @returns what they printed. @throws Error with what they complained of, unless they end with 0. */
  async sh(lines: string, options: { input?: string; timeoutMs?: number } = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(['bash', '--norc', '-euc', lines], options);
    if (code !== 0) throw new Error(`ended with ${code}: ${lines}\n${stdout}${stderr}`);
    return stdout.trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    await ended;
  }
}

/** Packs the packages as they are published and installs them, with Node, globally into an empty prefix. @returns the prefix, owned by the caller. */
export function installPackages(folder: TempFolder): string {
  const prefix = folder.join('prefix');
  const npm = (...args: string[]): Buffer => execFileSync('npm', args, { cwd: folder.path, env: cleanEnv(), stdio: ['ignore', 'pipe', 'pipe'] });
  for (const name of ['protocol', 'client', 'daemon']) npm('pack', '--silent', join(repository, name));
  const packed = readdirSync(folder.path).filter((name) => name.endsWith('.tgz'));
  mkdirSync(join(prefix, 'bin'), { recursive: true });
  chmodSync(folder.path, 0o755);
  npm('install', '--global', '--prefix', prefix, '--no-audit', '--no-fund', '--omit=optional', ...packed.map((name) => `./${name}`));
  copyFileSync(process.execPath, join(prefix, 'bin', 'node'));
  chmodSync(join(prefix, 'bin', 'node'), 0o755);
  return prefix;
}
