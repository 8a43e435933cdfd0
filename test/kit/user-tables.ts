import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cleanEnv, type TempFolder } from './agent.ts';
import { asUser, canRunAsUser } from './attacker.ts';

/** Whether a command can see other users than the machine has. */
export const canChangeTables = process.getuid?.() === 0 && canRunAsUser && spawnSync('unshare', ['--mount', 'true']).status === 0;

const script = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && shift 2 && exec "$@"';

/** Runs a command as the ordinary user, where /etc/passwd and /etc/group say something else. */
export function runWithTables(folder: TempFolder, tables: { passwd: string; group: string }, command: readonly string[]): SpawnSyncReturns<string> {
  const files = Object.entries(tables).map(([name, text]) => {
    writeFileSync(folder.join(name), text, { mode: 0o644 });
    return folder.join(name);
  });
  const args = ['--mount', '--propagation=private', 'sh', '-c', script, 'sh', ...files, ...asUser, ...command];
  return spawnSync('unshare', args, { cwd: '/', encoding: 'utf8', env: cleanEnv({ HOME: folder.path }) });
}
