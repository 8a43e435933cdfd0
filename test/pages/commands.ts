import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { repository } from '../kit/agent.ts';

/** A command as it describes itself. */
export interface CommandPage {
  readonly name: string;
  readonly description: string;
  readonly version?: string;
  readonly usage: string;
  /** Examples and the like, which its help ends with. */
  readonly after: string;
  readonly arguments: readonly { readonly name: string; readonly description: string }[];
  readonly options: readonly {
    readonly flags: string;
    readonly long?: string;
    readonly mandatory?: boolean;
    readonly description: string;
    readonly default?: string;
  }[];
  readonly commands: readonly CommandPage[];
}

/** Asks a built command line what commands it has, in an environment that is the same everywhere. */
export function readCommands(main: string): CommandPage {
  const hook = join(repository, 'test', 'pages', 'print-commands.mjs');
  const env = { PATH: process.env['PATH'], HOME: '~', XDG_RUNTIME_DIR: '$XDG_RUNTIME_DIR' };
  return JSON.parse(execFileSync(process.execPath, ['--import', hook, join(repository, main)], { env, encoding: 'utf8' })) as CommandPage; // our own hook
}
