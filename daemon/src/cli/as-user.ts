import { spawn } from 'node:child_process';
import { realpathSync } from 'node:fs';

/** A user by numbers. */
export interface UserIds {
  readonly uid: number;
  readonly gid: number;
}

/** A command that failed: what it complained of, and what it had printed before. */
export class FailedCommand extends Error {
  readonly output: string;

  constructor(complaint: string, output: string) {
    super(complaint);
    this.output = output;
  }
}

/** What kms-agent needs to run as somebody else. */
export interface AsUserOptions {
  /** Undefined for the user that runs already. */
  readonly user?: UserIds;
  readonly args: readonly string[];
  /** With all groups of that user, who must have a name, as systemd's User= has them; else without any. */
  readonly withGroups?: boolean;
  /** What it can read, from descriptor 3 on; a secret stands in no argument and no environment. */
  readonly inputs: readonly string[];
  /** Default: the Node and the program that run already. */
  readonly node?: string;
  readonly program?: string;
}

/**
 * Runs a kms-agent command as another user, with an empty environment.
 * @returns what it printed.
 * @throws FailedCommand; the system's error where it cannot be started.
 */
export function runAsUser({
  user,
  withGroups,
  args,
  inputs,
  node = process.execPath,
  program = realpathSync(process.argv[1] ?? ''),
}: AsUserOptions): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const stdio = ['ignore', 'pipe', 'pipe', ...inputs.map(() => 'pipe' as const)] as const;
  const command = [node, program, ...args];
  const [first = '', ...rest] = user && withGroups ? ['setpriv', `--reuid=${user.uid}`, `--regid=${user.gid}`, '--init-groups', ...command] : command;
  const child = spawn(first, rest, { stdio: [...stdio], cwd: '/', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }, ...(withGroups ? {} : user) });
  const [output, complaints]: [Buffer[], Buffer[]] = [[], []];
  child.stdout?.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => complaints.push(chunk));
  for (const [index, input] of inputs.entries()) {
    const pipe = child.stdio[3 + index] as NodeJS.WritableStream; // stdio above makes it a pipe
    pipe.on('error', () => undefined); // it ended before it read; its end says why
    pipe.end(input);
  }
  child.on('error', reject);
  child.on('close', (code) => {
    const printed = Buffer.concat(output).toString();
    if (code === 0) return resolve(printed);
    const said = Buffer.concat(complaints)
      .toString()
      .trim()
      .replace(/^kms-agent: /, '');
    reject(new FailedCommand(said || `kms-agent ${args[0]} ended with ${code}`, printed));
  });
  return promise;
}
