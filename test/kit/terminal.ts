import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { cleanEnv } from './agent.ts';

const program = fileURLToPath(new URL('./terminal.py', import.meta.url));
const python = '/usr/bin/python3';

/** A Debian package that the set-up installs. */
export const hasTerminal = existsSync(python);

/** A prompt, as a regular expression of its end, and what a person types. */
export type Answer = readonly [prompt: string, answer: string];

/** Runs a command on a terminal, as a person does. @returns what the terminal showed, and the status; 125 when a prompt did not come. */
export function onTerminal(
  command: readonly string[],
  answers: readonly Answer[],
  { env = cleanEnv(), cwd }: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
): { status: number | null; shown: string } {
  const { status, stdout } = spawnSync(python, [program, JSON.stringify({ command, answers })], { env, cwd, encoding: 'utf8' });
  return { status, shown: stdout };
}
