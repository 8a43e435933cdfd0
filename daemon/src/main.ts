import type { Audit } from './audit/audit.ts';
import type { Settings } from './config.ts';
import type { Agent } from './keyring/agent.ts';
import { leaveAfterLock, makeAgent } from './main/agent.ts';
import { Front } from './main/front.ts';
import type { StartOptions } from './main/options.ts';
import { openRecord } from './main/record.ts';
import { makeSessionLocks } from './main/session-locks.ts';
import { readProtections } from './os/protections.ts';
import { putEventLoopFirst } from './os/thread-pool.ts';
import { machineTime } from './os/time.ts';
import { checkTokens } from './providers/pkcs11/settings.ts';

export type { StartOptions } from './main/options.ts';

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
  const refusal = await putEventLoopFirst();
  if (refusal !== undefined) log.info('signatures under load will be slower', { detail: refusal });
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
