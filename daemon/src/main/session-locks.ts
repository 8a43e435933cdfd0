import { isAgentError } from '@kms-agent/protocol';
import type { Audit } from '../audit/audit.ts';
import type { Settings } from '../config.ts';
import type { Agent } from '../keyring/agent.ts';
import { SessionLocks } from '../keyring/session-locks.ts';
import { describeError, type Log } from '../log.ts';

/** Records and logs that the screen opened the vault again, or why it did not. */
function noteReopening(audit: Audit, log: Log, failure: unknown): void {
  const detail = { because: 'screenUnlock' };
  if (failure === undefined) {
    audit.note({ operation: 'unlock', outcome: 'ok', detail });
    log.info('unlocked with the screen');
    return;
  }
  audit.note({ operation: 'unlock', outcome: 'failed', error: isAgentError(failure) ? failure.code : 'ERR_INTERNAL', detail });
  const hint = isAgentError(failure) ? failure.details.hint : undefined;
  log.warn('the screen was unlocked, and nothing opens the vault without a person', { detail: hint ?? describeError(failure) });
}

/** What locks with the screen and before a suspension, as the settings have it. */
export function makeSessionLocks(
  agent: Agent,
  { lockOnSuspend, lockOnScreenLock, unlockOnScreenUnlock }: Settings,
  { audit, log, onLockFailed }: { readonly audit: Audit; readonly log: Log; readonly onLockFailed: (error?: unknown) => void },
): SessionLocks {
  return new SessionLocks({
    agent,
    lockOnSuspend,
    lockOnScreenLock,
    unlockOnScreenUnlock,
    onReopen: (failure) => noteReopening(audit, log, failure),
    onLockFailed,
    onReach: (trouble, isAsked) => {
      if (trouble === undefined) log.info('systemd-logind says when the machine is suspended and the screen locked');
      else log[isAsked ? 'warn' : 'info']('systemd-logind cannot be used', { detail: trouble });
    },
  });
}
