import { findSocket, isAgentError } from '@kms-agent/protocol';
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

const hints: Readonly<Record<string, string>> = {
  ERR_UNREACHABLE: 'Start one: kms-agent serve, or kms-agent dev for a try.',
  ERR_AGENT_LOCKED: 'Run: kms unlock',
  ERR_NOT_INITIALIZED: 'Run: kms-agent init',
  ERR_ACCESS_DENIED: 'kms whoami shows who the agent takes you for.',
  ERR_HSM_UNAVAILABLE: 'kms status says what is wrong with it.',
  ERR_KEY_UNAVAILABLE: 'kms status says what is wrong with its token.',
  ERR_KEY_NOT_FOUND: 'kms key list shows what there is.',
  ERR_ALIAS_NOT_FOUND: 'kms alias list shows what there is.',
};

/** Which agent was not there. */
function describeAddress(socket: string | undefined): string {
  const { path, source } = findSocket(socket);
  return ` (${path}, from ${source})`;
}

/** An error as a person reads it: code, text, and what to do. */
export function explainError(error: unknown, socket: string | undefined): string {
  if (!isAgentError(error)) return error instanceof Error ? error.message : String(error);
  const { path, reason, hint, retryAfterMs, findings } = error.details;
  const where = path === undefined ? '' : ` ${path} ${reason ?? ''}`;
  const address = error.code === 'ERR_UNREACHABLE' ? describeAddress(socket) : '';
  const wait = retryAfterMs === undefined ? '' : ` Wait ${Math.ceil(retryAfterMs / 1000)} s.`;
  const named = Array.isArray(findings) ? findings.map((finding) => `\n  ${String(finding)}`).join('') : '';
  return `${error.code}: ${error.message}${where}${address} ${hint ?? hints[error.code] ?? ''}${wait}`.trimEnd() + named;
}

/** 1 refused, 2 usage, 3 no agent, 4 locked or without a vault. */
export function exitStatusOf(error: unknown): number {
  if (isAgentError(error, 'ERR_UNREACHABLE', 'ERR_DISCONNECTED', 'ERR_TIMEOUT')) return 3;
  if (isAgentError(error, 'ERR_AGENT_LOCKED', 'ERR_NOT_INITIALIZED')) return 4;
  if (isAgentError(error, 'ERR_INVALID_PARAMS')) return 2;
  return isAgentError(error) ? 1 : 2;
}
