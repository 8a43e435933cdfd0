import { Agent } from '../keyring/agent.ts';
import type { TimeSource } from '../keyring/clock.ts';
import { describeError } from '../log.ts';
import { Keychain } from '../os/keychain.ts';
import { leaveNow } from '../os/libc.ts';
import type { Provider } from '../providers/provider.ts';
import { SoftwareProvider } from '../providers/software/provider.ts';
import { runSelfTest } from '../providers/software/self-test.ts';
import type { Vault } from '../vault/vault.ts';
import type { StartOptions } from './options.ts';
import type { AuditParts } from './record.ts';
import { makeTokenProvider } from './token-provider.ts';

/** What an agent is made of beside its options. */
export interface AgentParts extends AuditParts {
  /** The vault that was opened first. */
  readonly found: Vault | undefined;
  readonly time: TimeSource;
  readonly onChange: () => void;
  /** Hears that keys may still be in memory after a lock. */
  readonly onLockFailed: (error?: unknown) => void;
}

/** Keys may still be in memory: nothing else is of use than to leave, and to say why. */
export function leaveAfterLock({ log }: Pick<StartOptions, 'log'>, { audit }: Pick<AuditParts, 'audit'>): (error?: unknown) => void {
  return (error) => {
    log.error('lock did not come to its end; leaving, because keys may still be in memory', error === undefined ? {} : { detail: describeError(error) });
    audit.note({ operation: 'lock', outcome: 'failed', error: error === undefined ? 'overdue' : 'failed' });
    audit.flush(); // there is no other turn
    leaveNow(70);
  };
}

/** Where key material lives, the software provider first; it has tested itself. */
async function makeProviders({ settings, log }: StartOptions, { audit, time }: AgentParts, keychain: Keychain): Promise<Provider[]> {
  const software = new SoftwareProvider(settings);
  await runSelfTest(software);
  return [software, ...settings.tokens.map((token) => makeTokenProvider(token, { keychain, log, audit, time }))];
}

/** The agent itself, locked. */
export async function makeAgent(options: StartOptions, parts: AgentParts): Promise<Agent> {
  const { settings, log, openVault, lockMark } = options;
  const { time, witness, onChange, onLockFailed } = parts;
  const keychain = new Keychain(settings.keychainTimeoutMs);
  let { found } = parts;
  return new Agent({
    keychain,
    providers: await makeProviders(options, parts, keychain),
    time,
    openVault: () => {
      const vault = found ?? openVault();
      found = undefined;
      return vault;
    },
    idleLockMs: settings.idleLockMs,
    lockOnSuspend: settings.lockOnSuspend !== false,
    lockTimeoutMs: settings.lockTimeoutMs,
    onLockFailed,
    limits: {
      maxUses: settings.maxUsesPerVersion,
      blockSize: settings.useBlockSize,
      lookIntervalMs: settings.lookIntervalMs,
      maxOffMs: settings.maxOffMs,
      lockSettleMs: settings.lockSettleMs,
    },
    witness,
    ...(lockMark ? { lockMark } : {}),
    onState: onChange,
    onAct: ({ act, keyId, keyVersionId }) => {
      log.info('the agent acted on a key by itself', { act, keyId, ...(keyVersionId ? { keyVersionId } : {}) });
      onChange();
    },
    onWarning: (warning, error) => log.warn(warning, error === undefined ? {} : { detail: describeError(error) }),
  });
}
