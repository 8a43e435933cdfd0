import { decodeBlob, decodePolicy, type MethodResult, makeOpenRpcDocument } from '@kms-agent/protocol';
import type { Settings } from '../config.ts';
import { type Answered, Dispatcher } from '../dispatch/dispatcher.ts';
import type { FindKeyId } from '../dispatch/recording.ts';
import { lastCall } from '../front/last-call.ts';
import { type ListenAddress, Listener } from '../front/listener.ts';
import type { Agent } from '../keyring/agent.ts';
import type { TimeSource } from '../keyring/clock.ts';
import type { SessionLocks } from '../keyring/session-locks.ts';
import { describeError } from '../log.ts';
import { LateMetrics } from '../metrics/late.ts';
import { QuietWork } from '../metrics/quiet-work.ts';
import type { MetricsSnapshot } from '../metrics/registry.ts';
import { type Handlers, makeHandlers } from '../operations/index.ts';
import { canReadExecutables, readMachineId } from '../os/machine.ts';
import { version } from '../os/own-package.ts';
import { readProtections } from '../os/protections.ts';
import { Policy } from '../policy/policy.ts';
import type { StartOptions } from './options.ts';
import type { AuditParts } from './record.ts';

/** Bytes of a frame that its envelope and id may take beside a list. */
const envelopeBytes = 1024;

/** Whether only the agent's own user can connect. Of a socket that was passed nothing is assumed. */
const isPrivate = (listen: ListenAddress): boolean => ((listen.mode ?? ('path' in listen ? 0o600 : 0o666)) & 0o077) === 0;

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

/** Where the key of an answer lives, for who counts. */
function providerNameOf(agent: Agent, keyId: string | undefined): string {
  return keyId === undefined || agent.state !== 'UNLOCKED' ? '' : (agent.open.keyring.findKey(keyId)?.provider ?? '');
}

/** What answers for an agent. */
export interface FrontParts extends Pick<AuditParts, 'audit'> {
  readonly agent: Agent;
  readonly sessionLocks: SessionLocks;
  readonly time: TimeSource;
  readonly onChange: () => void;
}

/** What callers meet: the listener, and all that stands between it and the agent. */
export class Front {
  readonly #options: StartOptions;
  readonly #parts: FrontParts;
  readonly #policy: Policy;
  readonly #metrics: LateMetrics;
  readonly #dispatcher: Dispatcher;
  readonly #listener: Listener;
  readonly #later: QuietWork;
  #document: MethodResult<'rpc.discover'> | undefined;

  constructor(options: StartOptions, parts: FrontParts) {
    const { settings, log, readFacts } = options;
    this.#options = options;
    this.#parts = parts;
    this.#policy = this.#makePolicy();
    this.#metrics = new LateMetrics(version, () => this.#figures);
    this.#dispatcher = this.#makeDispatcher();
    this.#listener = new Listener({
      dispatch: this.#dispatcher,
      limits: settings,
      ...(readFacts ? { readFacts } : {}),
      onError: (error) => log.debug('a connection failed', { detail: describeError(error) }),
    });
    this.#later = new QuietWork(
      () => this.#doLater(),
      () => this.#listener.counts.inFlight > 0,
    );
  }

  /** Callers can connect from now on. */
  async listen(): Promise<void> {
    await this.#listener.listen(this.#options.listen);
    this.#later.start();
  }

  /** @throws AgentError `ERR_INVALID_PARAMS` with the `path` of a wrong one; nothing changed. */
  reload(settings: Settings): void {
    this.#policy.reload(readAuthority(settings));
  }

  /** Answers for a moment who waits already, stops accepting, and lets running requests end. */
  async close(): Promise<void> {
    this.#later.stop();
    await lastCall(() => ({ ...this.#listener.counts, answers: this.#later.answers }));
    this.#dispatcher.stop();
    await this.#listener.close(this.#options.settings.shutdownTimeoutMs);
  }

  #makePolicy(): Policy {
    const { settings, listen } = this.#options;
    const { agent, time } = this.#parts;
    return new Policy({
      ...readAuthority(settings),
      keyring: () => agent.open.keyring,
      now: () => time.wall(),
      hostId: readMachineId,
      readsExecutables: canReadExecutables(isPrivate(listen)),
    });
  }

  #makeHandlers(): Handlers {
    const { agent, audit } = this.#parts;
    return makeHandlers({
      agent,
      version,
      maxAnswerBytes: this.#options.settings.maxFrameBytes - envelopeBytes,
      authority: this.#policy,
      counts: () => this.#listener.counts,
      protections: readProtections,
      audit,
      metrics: () => this.#metrics.expose(),
      document: () => this.#describe(),
      warnings: () => this.#warnings,
    });
  }

  #makeDispatcher(): Dispatcher {
    const { settings, log } = this.#options;
    const { agent, audit } = this.#parts;
    return new Dispatcher({
      handlers: this.#makeHandlers(),
      policy: this.#policy,
      gate: agent,
      requestTimeoutMs: settings.requestTimeoutMs,
      audit,
      findKeyId: (params) => findKeyId(agent, params),
      vaultRevision: () => String(agent.revision),
      onAnswer: (answered) => this.#noteAnswer(answered),
      onInternalError: (requestId, method, error) =>
        log.error('a request failed unexpectedly', { requestId, method: method ?? '-', detail: describeError(error) }),
    });
  }

  #noteAnswer({ requestId, method, caller, code, keyId, seconds }: Answered): void {
    const { agent, onChange } = this.#parts;
    this.#later.noteAnswer();
    this.#metrics.count({ method, outcome: code, provider: providerNameOf(agent, keyId), seconds });
    this.#options.log.debug('request', { requestId, method, uid: caller.uid, code });
    onChange();
  }

  /** What is wrong with the machine and the session; of the keys the agent itself knows. */
  get #warnings(): string[] {
    const off = readProtections().filter(({ on }) => !on);
    return [...off.map(({ name, detail }) => `The protection ${name} is off: ${detail}`), ...this.#parts.sessionLocks.warnings];
  }

  get #figures(): MetricsSnapshot {
    const { agent, audit } = this.#parts;
    return {
      unlocked: agent.state === 'UNLOCKED',
      keys: agent.keyCount,
      ...this.#listener.counts,
      audit,
      providers: agent.providers.map((provider) => provider.status()),
      warnings: this.#warnings.length + agent.warnings.length,
    };
  }

  #describe(): MethodResult<'rpc.discover'> {
    this.#document ??= makeOpenRpcDocument(version);
    return this.#document;
  }

  /** Each takes a tenth of a start. */
  #doLater(): void {
    this.#describe();
    this.#metrics.load().catch((error: unknown) => this.#options.log.error('the figures cannot be loaded', { detail: describeError(error) }));
  }
}
