import { lstatSync } from 'node:fs';
import { AgentError, isAgentError } from '@kms-agent/protocol';
import type { ListenAddress } from '../front/listener.ts';
import type { Agent } from '../keyring/agent.ts';
import { describeError } from '../log.ts';
import { type Supervision, socketPathOf } from '../os/systemd.ts';
import type { LockMark } from '../vault/lock-mark.ts';

/** The first descriptor that systemd passes (sd_listen_fds(3)). */
const firstListenFd = 3;

/** What the socket unit calls the agent's socket (systemd.socket(5), FileDescriptorName=). */
const socketName = 'kms-agent';

/** The socket that was passed, with its path and mode where it has some: who else can connect decides what the agent may ask of callers. */
function passedSocket(): ListenAddress {
  const passed = socketPathOf(firstListenFd);
  const stat = passed === undefined ? undefined : lstatSync(passed, { throwIfNoEntry: false });
  return { fd: firstListenFd, ...(passed !== undefined && stat?.isSocket() ? { passed, mode: stat.mode & 0o777 } : {}) };
}

/**
 * A socket that systemd has opened for this process, else the path.
 * @throws AgentError `ERR_STATE_CONFLICT` for sockets that are not the agent's one: a socket unit that belongs to something else.
 */
export function chooseAddress({ sockets: { count, names } }: Pick<Supervision, 'sockets'>, path: string, mode: number): ListenAddress {
  if (count === 0) return { path, mode };
  if (count === 1 && (names === undefined || names[0] === socketName)) return passedSocket();
  const what = `${count === 1 ? 'one socket' : `${count} sockets`}${names ? ` named ${names.join(', ')}` : ''}`;
  const hint = `systemd passed ${what}; the agent takes one, with FileDescriptorName=${socketName} in its socket unit.`;
  throw new AgentError('ERR_STATE_CONFLICT', { hint });
}

/** A start that fails in the same way each time, because of settings or files: its exit status says that trying again is no use. */
export class HopelessStart extends Error {
  constructor(cause: AgentError) {
    super(cause.message, { cause });
  }
}

/** Runs a part of the start. @throws HopelessStart for what a person must mend first. */
export async function mustSucceed<T>(work: () => Promise<T> | T): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw isAgentError(error, 'ERR_STATE_CONFLICT', 'ERR_INVALID_PARAMS') ? new HopelessStart(error) : error;
  }
}

/** What a person should know beside the state. */
export interface Trouble {
  /** Why it has not opened by itself. */
  readonly reason?: string | undefined;
  /** Why the last reload took nothing over. */
  readonly refusal?: string | undefined;
}

/** What is quoted may have lines, and a second line would be another message to systemd. */
const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ');

function describeLock({ state, keyCount }: Pick<Agent, 'state' | 'keyCount'>, reason: string | undefined): string {
  if (state === 'UNLOCKED') return `unlocked, ${keyCount} ${keyCount === 1 ? 'key' : 'keys'}`;
  if (state === 'LOCKED') return `locked, no keys in memory${reason === undefined ? '' : `: ${oneLine(reason).replace(/\.$/, '')}`}; run kms unlock`;
  return 'uninitialized, no vault yet; run kms-agent init';
}

/** How the agent is, in one line for `systemctl status`. It is asked after each answer. */
export function describeState(agent: Pick<Agent, 'state' | 'keyCount'>, { reason, refusal }: Trouble = {}): string {
  const refused = refusal === undefined ? '' : `; the last reload was refused, the settings from before hold: ${oneLine(refusal)}`;
  return `${describeLock(agent, reason)}${refused}`;
}

/** Why nothing opens the vault by itself although something could. */
export function describeMark({ isOdd, path }: LockMark): string {
  return isOdd
    ? `${path} is not as an agent writes it, and counts as a lock`
    : 'it was locked before this start, so that no keyslot was tried without a person';
}

/** Why an unlock failed, for the log: an error's hint is ours and holds nothing of anybody's input. */
export function describeReason(error: unknown): string {
  return (isAgentError(error) ? error.details.hint : undefined) ?? describeError(error);
}
