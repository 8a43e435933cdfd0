import { Logind } from '../os/logind.ts';
import type { Agent } from './agent.ts';

/** Share of the time that a suspension waits after which the process leaves: keys must be gone before the machine sleeps. */
const shareOfDelay = 0.8;

export interface SessionLocksOptions {
  readonly agent: Pick<Agent, 'lockBecause' | 'reopen'>;
  /** As the settings say: `auto` is yes, where there is systemd-logind. */
  readonly lockOnSuspend: boolean | 'auto';
  readonly lockOnScreenLock: boolean | 'auto';
  /** Whether a screen that is unlocked opens again what the session has locked. */
  readonly unlockOnScreenUnlock: boolean;
  /** Hears that it was opened again, or why it was not. */
  readonly onReopen: (failure?: unknown) => void;
  /** Lock does not come to its end in time: the process must go. */
  readonly onLockFailed: () => void;
  /** Hears of each change, and why systemd-logind cannot be used. @param isAsked - a setting asks for it by a plain yes. */
  readonly onReach: (trouble: string | undefined, isAsked: boolean) => void;
}

/** Locks the agent before the machine sleeps and when its user's screen is locked, as systemd-logind tells, and opens it again with the screen where that is set. */
export class SessionLocks {
  readonly #options: SessionLocksOptions;
  readonly #logind: Logind | undefined;
  #isReopening = false;

  constructor(options: SessionLocksOptions) {
    this.#options = options;
    const { agent, onReach, unlockOnScreenUnlock } = options;
    const [onSuspend, onScreenLock] = [options.lockOnSuspend !== false, options.lockOnScreenLock !== false];
    if (!onSuspend && !onScreenLock) return; // what locks nothing opens nothing
    this.#logind = new Logind({
      onSuspend,
      onScreenLock: onScreenLock || unlockOnScreenUnlock,
      suspending: (delayMs) => this.#lockWithin(delayMs),
      screenLocked: () => {
        if (onScreenLock) void agent.lockBecause('screenLock').catch(() => undefined); // the agent leaves when it cannot lock
      },
      screenUnlocked: () => void this.#reopen(),
      onReach: (trouble) => onReach(trouble, options.lockOnSuspend === true || options.lockOnScreenLock === true || unlockOnScreenUnlock),
    });
  }

  /** What an administrator should know who asked for it. */
  get warnings(): string[] {
    const trouble = this.#logind?.trouble;
    if (trouble === undefined) return [];
    const { lockOnSuspend, lockOnScreenLock, unlockOnScreenUnlock } = this.#options;
    return [
      ...(lockOnSuspend === true
        ? [`lockOnSuspend is set, and systemd-logind cannot be used (${trouble}): keys stay in memory while the machine sleeps, and go when it is back.`]
        : []),
      ...(lockOnScreenLock === true ? [`lockOnScreenLock is set, and systemd-logind cannot be used (${trouble}): nobody says when the screen is locked.`] : []),
      ...(unlockOnScreenUnlock
        ? [`unlockOnScreenUnlock is set, and systemd-logind cannot be used (${trouble}): nothing is opened again with the screen.`]
        : []),
    ];
  }

  async close(): Promise<void> {
    await this.#logind?.close();
  }

  /** Once at a time: a session may say in two ways that it is unlocked. */
  async #reopen(): Promise<void> {
    const { agent, unlockOnScreenUnlock, onReopen } = this.#options;
    if (!unlockOnScreenUnlock || this.#isReopening) return;
    this.#isReopening = true;
    try {
      if (await agent.reopen()) onReopen();
    } catch (error) {
      onReopen(error);
    } finally {
      this.#isReopening = false;
    }
  }

  async #lockWithin(delayMs: number): Promise<void> {
    const { agent, onLockFailed } = this.#options;
    const overdue = delayMs > 0 ? setTimeout(onLockFailed, delayMs * shareOfDelay) : undefined;
    try {
      await agent.lockBecause('suspend');
    } finally {
      clearTimeout(overdue);
    }
  }
}
