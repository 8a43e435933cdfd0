import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { UsageError } from './files.ts';
import { optionsOf } from './session.ts';

/**
 * Asks before what cannot be undone; `--yes` answers for scripts.
 * @throws UsageError when the answer is not yes, or when there is nobody to ask.
 */
export async function confirm(command: Command, consequence: string): Promise<void> {
  if (optionsOf<{ yes?: boolean }>(command).yes) return;
  if (!process.stdin.isTTY) throw new UsageError(`${consequence} There is no terminal to ask on; --yes says that you want it.`);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(`${consequence}\nType yes to go on: `).finally(() => terminal.close());
  if (answer.trim() !== 'yes') throw new UsageError('nothing was done');
}
