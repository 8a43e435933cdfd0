import { decodeBlob, decodePolicy, isAgentError, type MethodResult, makeOpenRpcDocument } from '@kms-agent/protocol';
import { Audit } from './audit/audit.ts';
import type { ReadFacts } from './caller/process.ts';
import type { Settings } from './config.ts';
import { Dispatcher } from './dispatch/dispatcher.ts';
import type { FindKeyId } from './dispatch/recording.ts';
import { lastCall } from './front/last-call.ts';
import { type ListenAddress, Listener } from './front/listener.ts';
import { Agent } from './keyring/agent.ts';
import type { TimeSource } from './keyring/clock.ts';
import { SessionLocks } from './keyring/session-locks.ts';
import { Witness } from './keyring/witness.ts';
import { describeError, type Log } from './log.ts';
import { LateMetrics } from './metrics/late.ts';
import { QuietWork } from './metrics/quiet-work.ts';
import { makeHandlers } from './operations/index.ts';
import { readCredential } from './os/credentials.ts';
import { Keychain } from './os/keychain.ts';
import { leaveNow } from './os/libc.ts';
import { canReadExecutables, readMachineId } from './os/machine.ts';
import { version } from './os/own-package.ts';
import { readProtections } from './os/protections.ts';
import { machineTime } from './os/time.ts';
import { Policy } from './policy/policy.ts';
import { describeFailure } from './providers/pkcs11/messages.ts';
import { Pkcs11Provider } from './providers/pkcs11/provider.ts';
import { checkTokens, type TokenSettings } from './providers/pkcs11/settings.ts';
import { SoftwareProvider } from './providers/software/provider.ts';
import { runSelfTest } from './providers/software/self-test.ts';
import type { LockMark } from './vault/lock-mark.ts';
import type { Vault } from './vault/vault.ts';

/** Bytes of a frame that its envelope and id may take beside a list. */
const envelopeBytes = 1024;

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

/** Whether only the agent's own user can connect. Of a socket that was passed nothing is assumed. */
const isPrivate = (listen: ListenAddress): boolean => ((listen.mode ?? ('path' in listen ? 0o600 : 0o666)) & 0o077) === 0;

/** What the OS keychain calls the PIN of a token. */
const pinAccount = (token: string): string => `pin of token ${token}`;

/** What a token tells, and where its PIN may lie. */
interface TokenSurroundings {
  readonly keychain: Keychain;
  readonly log: Log;
  readonly audit: Audit;
  readonly time: TimeSource;
}

/** Each change of a token's state is logged once: while it is down nobody needs to read of every call. */
function makeTokenProvider(settings: TokenSettings, { keychain, log, audit, time }: TokenSurroundings): Pkcs11Provider {
  const { name } = settings;
  return new Pkcs11Provider({
    settings,
    readPin: async ({ pin }) => {
      if (pin === 'keychain') return await keychain.read(pinAccount(name));
      return pin.startsWith('credential:') ? readCredential(pin.slice('credential:'.length)) : undefined;
    },
    savePin: async ({ pin: source }, pin) => {
      if (source === 'keychain') await keychain.write(pinAccount(name), pin);
    },
    onState: (state, failure) => {
      audit.note({ operation: 'token', outcome: failure ? 'failed' : 'ok', detail: { token: name, state } });
      if (failure) log.error('a token is out of reach', { token: name, state, detail: describeFailure(failure) });
      else log.info('a token changed its state', { token: name, state });
    },
    onNote: (note, level) => log[level](note),
    now: () => time.wall(),
  });
}

/** Opens the audit record; without one nothing is served. */
function openAudit({
  settings,
  auditFolder,
  acceptRollback,
  log,
  time,
}: Pick<StartOptions, 'settings' | 'auditFolder' | 'acceptRollback' | 'log'> & { time: TimeSource }): {
  audit: Audit;
  witness: Witness;
} {
  const audit = new Audit({
    folder: auditFolder,
    maxFileBytes: settings.auditMaxFileBytes,
    maxTotalBytes: settings.auditMaxTotalBytes,
    minAgeMs: settings.auditMinAgeMs,
    reserveBytes: settings.auditReserveBytes,
    checkpointRecords: settings.auditCheckpointRecords,
    checkpointMs: settings.auditCheckpointMs,
    sync: settings.auditSync === 'each',
    now: () => time.wall(),
    sinceBoot: () => time.sinceBoot(),
    onChange: (state, error) => {
      if (state === 'failed') log.error('the audit record cannot be written; requests are refused until it can', { detail: describeError(error) });
      else log.info('the audit record is written again');
    },
  });
  audit.note({ operation: 'start', outcome: 'ok', detail: { version } });
  const witness = new Witness({ audit, onWarning: (warning) => log.warn(warning), ...(acceptRollback === undefined ? {} : { acceptRollback }) });
  return { audit, witness };
}

/** The key that a request names, for the record; nothing is said of what is missing. */
function findKeyId(agent: Agent, { keyId, aliasName, ciphertextBlob }: Parameters<FindKeyId>[0]): string | undefined {
  if (agent.state !== 'UNLOCKED') return undefined;
  const { keyring } = agent.open;
  const reference = keyId ?? aliasName;
  if (reference !== undefined) return reference.startsWith('alias/') ? keyring.aliases.find(reference)?.keyId : undefined;
  const blob = ciphertextBlob && decodeBlob(ciphertextBlob);
  return blob ? keyring.keyByVersion(blob.keyVersionId)?.keyId : undefined;
}

/** Who may do what, as the settings have it. @throws AgentError `ERR_INVALID_PARAMS`. */
function readAuthority({ administrators, policy }: Settings): { administrators: readonly string[]; agentPolicy: ReturnType<typeof decodePolicy> } {
  const own = ['uid:0', `uid:${process.geteuid?.() ?? 0}`];
  return { administrators: administrators.length > 0 ? administrators : own, agentPolicy: decodePolicy(policy) };
}

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

/** Where the key of an answer lives, for who counts. */
function providerNameOf(agent: Agent, keyId: string | undefined): string {
  return keyId === undefined || agent.state !== 'UNLOCKED' ? '' : (agent.open.keyring.findKey(keyId)?.provider ?? '');
}

/** Builds everything, wires it, and listens: the only place that makes a service. */
export async function startAgent({
  settings,
  listen,
  log,
  openVault,
  auditFolder,
  acceptRollback,
  lockMark,
  time = machineTime,
  readFacts,
  beforeListening = async () => undefined,
  onChange = () => undefined,
}: StartOptions): Promise<RunningAgent> {
  let found = openVault(); // before the record: who holds the vault is told so
  const { witness, audit } = openAudit({ settings, auditFolder, log, time, ...(acceptRollback === undefined ? {} : { acceptRollback }) });
  const onLockFailed = (error?: unknown): void => {
    log.error('lock did not come to its end; leaving, because keys may still be in memory', error === undefined ? {} : { detail: describeError(error) });
    audit.note({ operation: 'lock', outcome: 'failed', error: error === undefined ? 'overdue' : 'failed' });
    audit.flush(); // there is no other turn
    leaveNow(70);
  };
  const { idleLockMs, lockTimeoutMs, requestTimeoutMs } = settings;
  checkTokens(settings.tokens);
  for (const { name, on, detail } of readProtections()) if (!on) log.warn(`the protection ${name} is off`, { detail });
  const software = new SoftwareProvider(settings);
  await runSelfTest(software);
  const keychain = new Keychain(settings.keychainTimeoutMs);
  const agent = new Agent({
    keychain,
    providers: [software, ...settings.tokens.map((token) => makeTokenProvider(token, { keychain, log, audit, time }))],
    time,
    openVault: () => {
      const vault = found ?? openVault();
      found = undefined;
      return vault;
    },
    idleLockMs,
    lockOnSuspend: settings.lockOnSuspend !== false,
    lockTimeoutMs,
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
  const { lockOnSuspend, lockOnScreenLock, unlockOnScreenUnlock } = settings;
  const sessionLocks = new SessionLocks({
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
  const policy = new Policy({
    ...readAuthority(settings),
    keyring: () => agent.open.keyring,
    now: () => time.wall(),
    hostId: readMachineId,
    readsExecutables: canReadExecutables(isPrivate(listen)),
  });
  const warnings = (): string[] => [
    ...readProtections()
      .filter(({ on }) => !on)
      .map(({ name, detail }) => `The protection ${name} is off: ${detail}`),
    ...sessionLocks.warnings,
  ];
  const metrics = new LateMetrics(version, () => ({
    unlocked: agent.state === 'UNLOCKED',
    keys: agent.keyCount,
    ...listener.counts,
    audit,
    providers: agent.providers.map((provider) => provider.status()),
    warnings: warnings().length + agent.warnings.length,
  }));
  let made: MethodResult<'rpc.discover'> | undefined;
  const document = (): MethodResult<'rpc.discover'> => (made ??= makeOpenRpcDocument(version));
  const doLater = (): void => {
    document(); // each takes a tenth of a start
    void metrics.load();
  };
  const later = new QuietWork(doLater, () => listener.counts.inFlight > 0);
  const handlers = makeHandlers({
    agent,
    version,
    maxAnswerBytes: settings.maxFrameBytes - envelopeBytes,
    authority: policy,
    counts: () => listener.counts,
    protections: readProtections,
    audit,
    metrics: () => metrics.expose(),
    document,
    warnings,
  });
  const dispatcher: Dispatcher = new Dispatcher({
    handlers,
    policy,
    gate: agent,
    requestTimeoutMs,
    audit,
    findKeyId: (params) => findKeyId(agent, params),
    vaultRevision: () => String(agent.revision),
    onAnswer: ({ requestId, method, caller, code, keyId, seconds }) => {
      later.noteAnswer();
      metrics.count({ method, outcome: code, provider: providerNameOf(agent, keyId), seconds });
      log.debug('request', { requestId, method, uid: caller.uid, code });
      onChange();
    },
    onInternalError: (requestId, method, error) =>
      log.error('a request failed unexpectedly', { requestId, method: method ?? '-', detail: describeError(error) }),
  });
  const listener: Listener = new Listener({
    dispatch: dispatcher,
    limits: settings,
    ...(readFacts ? { readFacts } : {}),
    onError: (error) => log.debug('a connection failed', { detail: describeError(error) }),
  });
  await beforeListening(agent, audit);
  await listener.listen(listen);
  later.start();
  return {
    agent,
    audit,
    reload: (changed) => policy.reload(readAuthority(changed)),
    stop: async () => {
      later.stop();
      await lastCall(() => ({ ...listener.counts, answers: later.answers }));
      dispatcher.stop();
      await listener.close(settings.shutdownTimeoutMs);
      audit.note({ operation: 'stop', outcome: 'ok' });
      await sessionLocks.close();
      await agent.close();
      audit.close();
    },
  };
}
