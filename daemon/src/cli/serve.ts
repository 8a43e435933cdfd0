import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import type { Audit } from '../audit/audit.ts';
import { defaultSettings, readSettings, type Settings } from '../config.ts';
import type { Agent } from '../keyring/agent.ts';
import { describeError, type Log, makeLog } from '../log.ts';
import { type RunningAgent, startAgent } from '../main.ts';
import { withInheritedMask } from '../os/protections.ts';
import { Notifier, takeSupervision } from '../os/systemd.ts';
import { machineTime } from '../os/time.ts';
import { hasVault } from '../vault/folder.ts';
import { changeMark, type LockMark, lockMarkIn } from '../vault/lock-mark.ts';
import { Vault } from '../vault/vault.ts';
import { hearSignal, releaseSignals } from './early-signals.ts';
import { type ReloadOptions, reload } from './reload.ts';
import { chooseAddress, describeMark, describeReason, describeState, mustSucceed, type Trouble } from './supervised.ts';

/** Where serve works. */
export interface ServeOptions {
  readonly config: string;
  readonly configRequired: boolean;
  readonly dataDir: string;
  readonly auditDir: string;
  readonly socket: string;
  readonly acceptRollback?: bigint;
}

/** Ends the agent on the signals that end it. Each may come twice. */
function endOnSignals(
  running: RunningAgent,
  log: Log,
  { onStopping, onStopped }: { onStopping?: () => void; onStopped: () => void },
  ending: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT'],
): void {
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    log.info('stopping', { signal });
    if (stopping) return;
    stopping = true;
    onStopping?.();
    running.stop().then(onStopped, (error: unknown) => {
      log.error('the agent did not stop cleanly', { detail: describeError(error) });
      process.exit(70);
    });
  };
  for (const signal of ending) process.on(signal, stop);
  releaseSignals();
}

/** What SIGUSR2 does. */
const locker = (agent: Agent, log: Log) => (): void => {
  void agent.lockBecause('SIGUSR2').catch((error: unknown) => log.error('lock failed', { detail: describeError(error) }));
};

/** SIGUSR2 before there is an agent: the vault counts as locked, and so the agent that is being started leaves it so, or the next one if this ends. */
function lockBeforeStart(dataDir: string, lockMark: LockMark): void {
  hearSignal('SIGUSR2', () => {
    if (hasVault(dataDir)) changeMark(lockMark, 'set', () => undefined); // the agent tries again as soon as it is there, and warns
  });
}

/** SIGHUP: opens the audit record anew, and reads the settings again, one after the other however fast it comes. @param onReload - hears why it was refused, or undefined. */
function reloadOnSignal(settings: Settings, notifier: Notifier, onReload: (refusal: string | undefined) => void, options: ReloadOptions): void {
  let current = settings;
  let turn = Promise.resolve();
  const work = async (): Promise<void> => {
    const reloaded = await reload(current, options);
    current = reloaded.settings;
    onReload(reloaded.refusal);
  };
  hearSignal('SIGHUP', () => {
    options.running.audit.reopen();
    turn = turn.then(() => notifier.reloading(work));
  });
}

/** Says on standard output where the agent is, in words a shell can read. */
function announce(path: string): void {
  process.stdout.removeAllListeners('error').on('error', () => undefined); // nobody waits for it any more, which ends no agent
  process.stdout.write(`export KMS_AGENT_SOCK=${path}\n`);
}

/** Runs the agent until a signal ends it. @throws HopelessStart for settings and files that are not as they must be. */
export async function serve({ config, configRequired, dataDir, auditDir, socket, acceptRollback }: ServeOptions): Promise<void> {
  const lockMark = lockMarkIn(dataDir, machineTime.bootId);
  lockBeforeStart(dataDir, lockMark);
  const supervision = takeSupervision(process.env);
  const settings = await mustSucceed(() => readSettings(config, configRequired));
  const log = makeLog(settings);
  const notifier = new Notifier(supervision, (error) => log.warn('the service manager cannot be told', { detail: describeError(error) }));
  const openVault = (): Vault | undefined => (hasVault(dataDir) ? Vault.open({ dataDir, clock: Date.now }) : undefined);
  const rollback = acceptRollback === undefined ? {} : { acceptRollback };
  let tell = (): void => undefined; // nobody can ask before it is ready
  let trouble: Trouble = {};
  let path = socket;
  let isPassed = false;
  const note = (more: Trouble): void => {
    trouble = { ...trouble, ...more };
    tell();
  };
  const onFailed = (reason: string): void => note({ reason });
  const running = await mustSucceed(async () => {
    const listen = chooseAddress(supervision, socket, settings.socketMode);
    isPassed = 'fd' in listen;
    path = ('fd' in listen ? listen.passed : undefined) ?? socket;
    const beforeListening = async (agent: Agent, audit: Audit): Promise<void> => {
      hearSignal('SIGUSR2', locker(agent, log));
      await firstTry({ agent, audit, lockMark }, log, onFailed);
    };
    return await startAgent({ settings, log, listen, openVault, auditFolder: auditDir, lockMark, beforeListening, onChange: () => tell(), ...rollback });
  });
  tell = () => {
    if (trouble.reason !== undefined && running.agent.state === 'UNLOCKED') trouble = { ...trouble, reason: undefined }; // it has been opened since
    notifier.status(describeState(running.agent, trouble));
  };
  endOnSignals(running, log, { onStopping: () => notifier.stopping(), onStopped: () => process.exit(0) });
  if (!isPassed) announce(path); // who passed one knows where it is
  tell();
  notifier.ready();
  log.info('ready', { path, state: running.agent.state });
  reloadOnSignal(settings, notifier, (refusal) => note({ refusal }), { file: config, required: configRequired, running, log });
}

/** Milliseconds that a token may keep callers waiting at the start. */
const firstTryMs = 10_000;

/** Waits until the vault has opened by itself, or a try has failed: after a restart the first call of a caller must not find it locked. */
async function firstTry(
  { lockMark, ...running }: Pick<RunningAgent, 'agent' | 'audit'> & { lockMark: LockMark },
  log: Log,
  onFailed: (why: string) => void,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const tell = (why: string): void => {
    onFailed(why);
    resolve();
  };
  if (!running.agent.isUntouched) {
    const why = describeMark(lockMark);
    log[lockMark.isOdd ? 'warn' : 'info'](`stays locked: ${why}; kms unlock opens it`, { path: lockMark.path });
    onFailed(why);
  }
  openByItself(running, log, tell).then(resolve, reject);
  const timer = setTimeout(resolve, firstTryMs);
  await promise.finally(() => clearTimeout(timer));
}

/** Milliseconds between two tries of the tokens, and after so many tries: what is away for longer may be so all day. */
const selfUnlockMs = 1000;
const slowUnlockMs = 10_000;
const quickTries = 60;
/** Milliseconds after which a token that waits for a PIN asks its source anew: a keychain may have been opened meanwhile. */
const askAnewMs = 300_000;

/**
 * Tries, as long as nobody has unlocked or locked, the slots that need no person. A network HSM may come up after this host; the tokens heal
 * by themselves meanwhile, and never try a PIN again that was refused. A credential is what it was at the start, and is tried once. What stays as
 * it was is said once.
 * @param onFailed - hears why a try failed.
 */
async function openByItself({ agent, audit }: Pick<RunningAgent, 'agent' | 'audit'>, log: Log, onFailed: (why: string) => void): Promise<void> {
  let said = '';
  let awakeMs = 0;
  for (let tries = 1; agent.state === 'LOCKED' && agent.ways.hasOwnKeyslot && agent.isUntouched; tries += 1) {
    try {
      await agent.ways.unlockByItself();
      audit.note({ operation: 'unlock', outcome: 'ok', detail: { because: 'start' } });
      log.info('unlocked without a person', { state: agent.state });
    } catch (error) {
      const detail = describeReason(error);
      if (detail !== said) {
        audit.note({ operation: 'unlock', outcome: 'failed', error: isAgentError(error) ? error.code : 'ERR_INTERNAL', detail: { because: 'start' } });
        log.warn('nothing opens the vault without a person yet', { detail });
        onFailed(detail);
      }
      said = detail;
      if (!agent.ways.mayOpenLater) return;
      const pauseMs = tries < quickTries ? selfUnlockMs : slowUnlockMs;
      awakeMs = awakeMs < askAnewMs ? awakeMs + pauseMs : 0;
      if (awakeMs === 0) await agent.ways.sleep();
      await delay(pauseMs, undefined, { ref: false });
    }
  }
  if (said !== '') await agent.ways.sleep();
}

/** Nobody could unlock it again. */
const devSettings = { ...defaultSettings, lockOnSuspend: false, lockOnScreenLock: false };

/**
 * Runs an agent whose vault lives in memory, already unlocked.
 * @param command - ends the agent with it, and with its status; empty to stay until a signal.
 */
export async function serveDev({ socket, defaultKey, command }: { socket?: string; defaultKey: boolean; command: readonly string[] }): Promise<void> {
  const folder = mkdtempSync(join(process.env['XDG_RUNTIME_DIR'] ?? tmpdir(), 'kms-agent-dev-'));
  const path = socket ?? join(folder, 'agent.sock');
  const log = makeLog({ ...defaultSettings, logLevel: 'warn' });
  const { vault } = await Vault.create({ clock: Date.now, slots: [] });
  const running = await startAgent({ settings: devSettings, log, listen: { path }, openVault: () => vault, auditFolder: join(folder, 'audit') });
  const leave = (status: number): void => {
    rmSync(folder, { recursive: true, force: true });
    process.exit(status);
  };
  if (command.length === 0) {
    endOnSignals(running, log, { onStopped: () => leave(0) }, ['SIGTERM', 'SIGINT', 'SIGHUP']); // it goes with its terminal
    process.on('SIGUSR2', locker(running.agent, log));
  }
  if (defaultKey) await running.agent.open.creation.createKey({ uid: process.getuid?.() ?? 0 }, { aliasName: 'alias/default', description: 'Default key' });
  if (command.length === 0) return announce(path);
  const status = await runCommand(command, path);
  await running.stop();
  leave(status);
}

/**
 * Runs a command with the agent's address in its environment. Signals are the command's, and the agent ends when it does.
 * @returns its exit status, 128 + the signal if one ended it.
 */
function runCommand([program = '', ...args]: readonly string[], path: string): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal)); // before it is there: it may have said so already
  process.on('SIGINT', () => process.stdin.isTTY || child.kill('SIGINT')); // a terminal sends it to the command as well
  releaseSignals();
  const child = withInheritedMask(() => spawn(program, args, { stdio: 'inherit', env: { ...process.env, KMS_AGENT_SOCK: path } }));
  child.on('error', (error) => {
    process.stderr.write(`kms-agent: ${program} cannot be run: ${error.message}\n`);
    resolve(127);
  });
  child.on('exit', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  return promise;
}
