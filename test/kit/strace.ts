import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Whether system calls of another process can be made to fail here. */
export const canInject = process.getuid?.() === 0 && existsSync('/usr/bin/strace');

/** System calls that fail, or end their process. */
export interface Faults {
  /** Names with commas between. */
  readonly calls: string;
  /** For example EIO; `KILL` ends the process before the call; `SLOW` has it wait 0.3 s. */
  readonly error: string;
  /** Only calls on these paths, or on descriptors of them. Default: all. */
  readonly paths?: readonly string[];
  /** Which of the calls, in the words of strace(1): `2`, `3+`. Default: each. */
  readonly when?: string;
}

function argumentsOf({ calls, error, paths = [], when }: Faults): string[] {
  const effect = error === 'SLOW' ? 'delay_enter=300000' : `${error === 'KILL' ? 'signal' : 'error'}=${error}`;
  const inject = `inject=${calls}:${effect}${when === undefined ? '' : `:when=${when}`}`;
  return ['-e', `trace=${calls}`, '-e', inject, ...paths.flatMap((path) => ['-P', path])];
}

/** A command that runs a program, and all that it starts, with faults. */
export const withFaults = (faults: Faults): string[] => ['strace', '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', ...argumentsOf(faults)];

/** Makes system calls of the main thread of a running process fail until it is ended. */
export async function injectFaults(pid: number, faults: Faults): Promise<AsyncDisposable> {
  const tracer = spawn('strace', ['-p', String(pid), ...argumentsOf(faults)], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise<void>((resolve) => tracer.on('exit', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    tracer.stderr.on('data', (chunk: Buffer) => chunk.toString().includes('attached') && resolve());
    tracer.on('exit', (code) => reject(new Error(`strace ended with ${code}`)));
    tracer.on('error', reject);
  });
  return {
    [Symbol.asyncDispose]: async () => {
      tracer.kill('SIGINT');
      await ended;
    },
  };
}
