import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type AgentClient, connect } from '@kms-agent/client';
import { makeDefaultKey } from '../../daemon/src/cli/vault-commands.ts';
import { Vault } from '../../daemon/src/vault/vault.ts';

export const repository = fileURLToPath(new URL('../..', import.meta.url));
export const agentProgram = join(repository, 'daemon', 'bin', 'kms-agent.js');
export const kmsProgram = join(repository, 'client', 'bin', 'kms.js');
export const passphrase = 'correct horse battery staple';

/** The environment of a person's shell, without what would lead a program to another agent. */
export function cleanEnv(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const {
    NODE_OPTIONS: _options,
    KMS_AGENT_SOCK: _sock,
    XDG_RUNTIME_DIR: _runtime,
    XDG_CONFIG_HOME: _config,
    UV_THREADPOOL_SIZE: _threads,
    ...env
  } = process.env;
  return { ...env, ...extra };
}

/** A fresh folder that goes away with the test. */
export class TempFolder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'kms-test-'));

  join(...parts: string[]): string {
    return join(this.path, ...parts);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** What a finished program left. */
export interface Finished {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs a program of ours to its end; `secret` goes to descriptor 3. */
export function run(
  program: string,
  args: readonly string[],
  { input, secret, env }: { input?: Uint8Array; secret?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Finished> {
  const { promise, resolve, reject } = Promise.withResolvers<Finished>();
  const child = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'], env: env ?? cleanEnv() });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  for (const pipe of [child.stdin, child.stdio[3]]) pipe?.on('error', () => undefined); // the program may end without reading
  child.stdin.end(input);
  (child.stdio[3] as NodeJS.WritableStream).end(secret ?? ''); // stdio above makes it a pipe
  child.on('error', reject);
  child.on('close', (code) => resolve({ code, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }));
  return promise;
}

/** How an agent is started. */
export interface StartOptions {
  /** A command that runs it. */
  readonly command?: readonly string[];
  /** Node, where it is another than this one. */
  readonly node?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** A real agent in a process of its own. */
export class TestAgent implements AsyncDisposable {
  readonly socketPath: string;
  readonly child: ChildProcess;
  readonly #clients: AgentClient[] = [];
  /** What the agent wrote to its log since it was ready. */
  log = '';
  /** What it wrote before. */
  readonly startLog: string;

  private constructor(child: ChildProcess, socketPath: string, startLog: string) {
    child.stderr?.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    this.child = child;
    this.socketPath = socketPath;
    this.startLog = startLog;
  }

  /** Starts a program that prints its address when it is ready. */
  static async start(args: readonly string[], options: StartOptions = {}): Promise<TestAgent> {
    const { node = process.execPath } = options;
    const [program, before] = options.command ? [options.command[0] ?? '', [...options.command.slice(1), node]] : [node, []];
    const child = spawn(program, [...before, agentProgram, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: options.env ?? cleanEnv() });
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    let complaints = '';
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      complaints += chunk.toString();
    });
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const path = /^export KMS_AGENT_SOCK=(.*)$/m.exec(said)?.[1];
      if (path) resolve(path);
    });
    child.on('exit', (code) => reject(new Error(`the agent ended with ${code}: ${complaints}`)));
    const socketPath = await promise;
    return new TestAgent(child, socketPath, complaints);
  }

  /** An agent with its vault in memory, unlocked. */
  static async dev(...args: string[]): Promise<TestAgent> {
    return await TestAgent.start(['dev', ...args]);
  }

  /** An agent on a vault in a folder, locked. */
  static async serve(folder: TempFolder, ...args: (string | StartOptions)[]): Promise<TestAgent> {
    const flags = args.filter((arg) => typeof arg === 'string');
    const options = args.find((arg) => typeof arg !== 'string');
    return await TestAgent.start(['serve', '--data-dir', folder.join('vault'), '--socket', folder.join('agent.sock'), ...flags], options);
  }

  async client(): Promise<AgentClient> {
    const client = await connect({ socketPath: this.socketPath });
    this.#clients.push(client);
    return client;
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    for (const client of this.#clients) client.close();
    if (this.child.exitCode !== null || this.child.signalCode !== null) return this.child.exitCode;
    const { promise, resolve } = Promise.withResolvers<number | null>();
    this.child.on('exit', (code) => resolve(code));
    this.child.kill(signal);
    return await promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}

/** What Argon2 costs in tests that are about something else. */
const cheap = { memoryKiB: 64, passes: 1, parallelism: 1 };

/** Makes a vault in a folder, as `init` does it, but for the price of guessing the passphrase. @returns the recovery code. */
export async function initVault(folder: TempFolder, ...flags: '--no-default-key'[]): Promise<string> {
  const slots = [{ type: 'passphrase', passphrase }, { type: 'recovery' }] as const;
  const { vault, recoveryCode = '' } = await Vault.create({ dataDir: folder.join('vault'), clock: Date.now, slots, argon2Cost: cheap });
  if (!flags.includes('--no-default-key')) await makeDefaultKey(vault);
  vault.close();
  return recoveryCode;
}

/** Makes a vault in a folder by the command that people use. @returns the recovery code. */
export async function initByCommand(folder: TempFolder, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(agentProgram, ['init', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json', ...args], {
    secret: `${passphrase}\n`,
  });
  if (code !== 0) throw new Error(`init ended with ${code}: ${stderr}`);
  return (JSON.parse(stdout.toString()) as { recoveryCode: string }).recoveryCode;
}

/** An unlocked agent with settings of its own. */
export async function serveWith(folder: TempFolder, settings: object): Promise<TestAgent> {
  await initVault(folder);
  writeFileSync(folder.join('config.json'), JSON.stringify(settings), { mode: 0o600 });
  const agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
  await (await agent.client()).unlock({ passphrase });
  return agent;
}
