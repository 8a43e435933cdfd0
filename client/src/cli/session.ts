import { readFileSync, statSync } from 'node:fs';
import { userInfo } from 'node:os';
import { type AddressSource, findSocket, isAgentError, remedies, systemSocketPath } from '@kms-agent/protocol';
import type { Command } from 'commander';
import { type AgentClient, connect } from '../client.ts';

/** What every command takes. */
export interface GlobalOptions {
  readonly socket?: string;
  readonly json?: boolean;
  readonly timeout?: number;
}

/** Options of a command and of all above it. */
export function optionsOf<T>(command: Command): GlobalOptions & T {
  return command.optsWithGlobals();
}

/** Runs work with a client that is closed afterwards. */
export async function withClient<T>(command: Command, work: (client: AgentClient) => Promise<T>): Promise<T> {
  const { socket, timeout } = optionsOf<object>(command);
  await using client = await connect({ ...(socket === undefined ? {} : { socketPath: socket }), ...(timeout === undefined ? {} : { timeoutMs: timeout }) });
  return await work(client);
}

const sources: Readonly<Record<AddressSource, string>> = {
  option: 'from --socket',
  KMS_AGENT_SOCK: 'from KMS_AGENT_SOCK',
  XDG_RUNTIME_DIR: 'from XDG_RUNTIME_DIR',
  system: "the default, the system's",
};

/** Which agent is talked to, and why that one. */
export function describeAddress(socket: string | undefined): string {
  const { path, source } = findSocket(socket);
  return `${path}, ${sources[source]}`;
}

/** The group of a socket by name; by number where it has none. */
function groupOf(path: string): string {
  const { gid } = statSync(path);
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((entry) => entry.split(':')[2] === String(gid));
  return line?.split(':')[0] ?? String(gid);
}

/** What to do where no agent answers: one that is there may let in a group only, and the system's is not started by hand. */
function adviseUnreachable({ cause }: Error, socket: string | undefined): string {
  const { path, source } = findSocket(socket);
  const isForbidden = cause instanceof Error && 'code' in cause && cause.code === 'EACCES';
  try {
    if (isForbidden)
      return `You may not open it: it is for the group ${groupOf(path)}. As root: usermod -a -G ${groupOf(path)} ${userInfo().username}; then log in anew.`;
  } catch {
    return 'You may not open it, nor look into its folder: who has set it up can let you in.';
  }
  return source === 'system' || path === systemSocketPath ? "See what became of the system's: systemctl status kms-agent" : remedies.ERR_UNREACHABLE;
}

/** What is to be said of an error: of a time that ran out while there was no agent, why there was none; more time would not help. */
function reasonOf(error: unknown): unknown {
  if (!isAgentError(error, 'ERR_TIMEOUT') || error.details.mayHaveRun === true) return error;
  return isAgentError(error.cause, 'ERR_UNREACHABLE', 'ERR_SHUTTING_DOWN', 'ERR_DISCONNECTED') ? error.cause : error;
}

/** An error as a person reads it: code, text, and what to do. */
export function explainError(met: unknown, socket: string | undefined): string {
  const error = reasonOf(met);
  if (!isAgentError(error)) return error instanceof Error ? error.message : String(error);
  const { path, reason, hint, retryAfterMs, findings } = error.details;
  const where = path === undefined ? '' : ` ${path} ${reason ?? ''}`;
  const address = error.code === 'ERR_UNREACHABLE' ? ` (${describeAddress(socket)})` : '';
  const advice = error.code === 'ERR_UNREACHABLE' ? adviseUnreachable(error, socket) : remedies[error.code];
  const wait = retryAfterMs === undefined ? '' : ` Wait ${Math.ceil(retryAfterMs / 1000)} s.`;
  const named = Array.isArray(findings) ? findings.map((finding) => `\n  ${String(finding)}`).join('') : '';
  return `${error.code}: ${error.message}${where}${address} ${hint ?? advice}${wait}`.trimEnd() + named;
}

/** 1 refused, 2 usage, 3 no agent, 4 locked or without a vault. */
export function exitStatusOf(error: unknown): number {
  if (isAgentError(error, 'ERR_UNREACHABLE', 'ERR_DISCONNECTED', 'ERR_TIMEOUT')) return 3;
  if (isAgentError(error, 'ERR_AGENT_LOCKED', 'ERR_NOT_INITIALIZED')) return 4;
  if (isAgentError(error, 'ERR_INVALID_PARAMS')) return 2;
  return isAgentError(error) ? 1 : 2;
}
