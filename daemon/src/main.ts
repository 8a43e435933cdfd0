import type { Audit } from './audit/audit.ts';
import type { ReadFacts } from './caller/process.ts';
import type { Settings } from './config.ts';
import type { ListenAddress } from './front/listener.ts';
import type { Agent } from './keyring/agent.ts';
import type { TimeSource } from './keyring/clock.ts';
import type { Log } from './log.ts';
import { leaveAfterLock, makeAgent } from './main/agent.ts';
import { Front } from './main/front.ts';
import { openRecord } from './main/record.ts';
import { makeSessionLocks } from './main/session-locks.ts';
import { readProtections } from './os/protections.ts';
import { machineTime } from './os/time.ts';
import { checkTokens } from './providers/pkcs11/settings.ts';
import type { LockMark } from './vault/lock-mark.ts';
import type { Vault } from './vault/vault.ts';

/** What an agent is built from. */
export interface StartOptions {
  readonly settings: Settings;
  readonly listen: ListenAddress;
  readonly log: Log;
  readonly openVault: () => Vault | undefined;
  /** Folder of the audit record. */
  readonly auditFolder: string;
  /** Revision of an older vault that an administrator wants to go on with. */
  readonly acceptRollback?: bigint;
  /** Remembers a lock over the end of the process. */
  readonly lockMark?: LockMark;
  /** Default: the machine's. */
  readonly time?: TimeSource;
  /** Says what is known of a caller's process. Default: what the kernel says. */
  readonly readFacts?: ReadFacts;
  /** Runs when all is built, and is waited for before anybody can connect. */
  readonly beforeListening?: (agent: Agent, audit: Audit) => Promise<void>;
  /** Hears that the state or the number of keys may be another one. */
  readonly onChange?: () => void;
}

/** An agent that answers. */
export interface RunningAgent {
  readonly agent: Agent;
  readonly audit: Audit;
  /** Takes over what settings say of who may do what. @throws AgentError `ERR_INVALID_PARAMS` with the `path` of a wrong one; nothing changed. */
  reload(settings: Settings): void;
  /** Answers for a moment who waits already, stops accepting, lets running requests end, locks, and gives everything back. */
  stop(): Promise<void>;
}

/** Builds everything, wires it, and listens; what it needs for that, and nothing else, is in `main/`: the only place that makes a service. */
export async function startAgent(options: StartOptions): Promise<RunningAgent> {
  const { settings, log, time = machineTime, onChange = () => undefined } = options;
  const found = options.openVault(); // before the record: who holds the vault is told so
  const record = openRecord({ ...options, time });
  const { audit } = record;
  const onLockFailed = leaveAfterLock(options, record);
  checkTokens(settings.tokens);
  for (const { name, on, detail } of readProtections()) if (!on) log.warn(`the protection ${name} is off`, { detail });
  const agent = await makeAgent(options, { ...record, found, time, onChange, onLockFailed });
  const sessionLocks = makeSessionLocks(agent, settings, { audit, log, onLockFailed });
  const front = new Front(options, { agent, audit, sessionLocks, time, onChange });
  await options.beforeListening?.(agent, audit);
  await front.listen();
  return {
    agent,
    audit,
    reload: (changed) => front.reload(changed),
    stop: async () => {
      await front.close();
      audit.note({ operation: 'stop', outcome: 'ok' });
      await sessionLocks.close();
      await agent.close();
      audit.close();
    },
  };
}
