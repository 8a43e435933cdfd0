import { spawnSync } from 'node:child_process';

/** Milliseconds that a command of systemd may take: starting the agent is among them. */
const deadlineMs = 120_000;

/** Runs a command of the system to its end. @returns what it printed. @throws Error with what it complained of. */
export function runCommand(program: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', timeout: deadlineMs, stdio: ['ignore', 'pipe', 'pipe'] });
  if (status === 0) return stdout.trim();
  throw new Error(`${program} ${args.join(' ')} failed: ${error?.message ?? (stderr.trim() || `status ${status}`)}`);
}

/** Whether a command ends with 0. */
export function succeeds(program: string, ...args: readonly string[]): boolean {
  return spawnSync(program, args, { timeout: deadlineMs, stdio: 'ignore' }).status === 0;
}
