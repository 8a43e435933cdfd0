import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, renameSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { libc } from '../../daemon/src/os/libc.ts';
import { agentProgram, type TempFolder } from './agent.ts';

const dup = libc.func('int dup(int fd)');

/** A socket that stays while agents come and go, as a socket unit of systemd keeps it: who connects meanwhile waits. */
export class PassedSocket implements Disposable {
  readonly path: string;
  readonly #fd: number;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  static async open(folder: TempFolder): Promise<PassedSocket> {
    const [bound, path] = [folder.join('bound.sock'), folder.join('passed.sock')];
    const server = createServer().listen({ path: bound, backlog: 512 });
    await once(server, 'listening');
    const { fd } = (server as unknown as { _handle: { fd: number } })._handle; // node:net has no public way to it
    const kept = Number(dup(fd));
    renameSync(bound, path); // closing takes the file of the old name away
    server.close();
    return new PassedSocket(path, kept);
  }

  /** Starts an agent on it. @returns when that is ready. */
  async start(dataDir: string, env: NodeJS.ProcessEnv): Promise<ChildProcess> {
    const command = `export LISTEN_FDS=1 LISTEN_PID=$$; exec "${process.execPath}" "${agentProgram}" serve --data-dir "${dataDir}"`;
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'pipe', this.#fd], env });
    const lines = createInterface({ input: child.stderr as Readable }); // stdio above makes it a pipe
    for await (const line of lines) if (line.includes('"message":"ready"')) break;
    child.stderr?.resume();
    return child;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
