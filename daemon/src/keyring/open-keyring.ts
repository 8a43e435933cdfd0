import { type ActRecorder, type AgentAct, makeCommitAct } from './acts.ts';
import { Aliases } from './aliases.ts';
import { Budget, type BudgetLimits } from './budget.ts';
import { Cipher } from './cipher.ts';
import type { BelievableClock } from './clock.ts';
import { Creation } from './creation.ts';
import type { Gate } from './gate.ts';
import type { Keyring } from './keyring.ts';
import { Life } from './life.ts';
import { ImportedMaterial } from './material.ts';
import { PageTokens } from './page-tokens.ts';
import { Scheduler } from './scheduler.ts';
import { Signer } from './signer.ts';
import { TokenWork } from './token-work.ts';
import { Watch } from './watch.ts';

/** Everything that works on keys, there only while the vault is unlocked. */
export interface OpenKeyring {
  readonly keyring: Keyring;
  readonly creation: Creation;
  readonly aliases: Aliases;
  readonly life: Life;
  readonly material: ImportedMaterial;
  readonly cipher: Cipher;
  readonly signer: Signer;
  readonly budget: Budget;
  readonly watch: Watch;
  readonly scheduler: Scheduler;
  readonly tokenWork: TokenWork;
  readonly pageTokens: PageTokens;
  /** Ids of keys that were seen to have spent three quarters of the budget of a version that still encrypts. */
  nearlySpent(): string[];
}

/** Limits that are settings. */
export interface KeyringLimits extends BudgetLimits {
  /** Longest time between two looks at what is due. */
  readonly lookIntervalMs: number;
  /** Longest time that the machine may have been off for its clock to be believed without confirmation. */
  readonly maxOffMs: number;
  /** Longest time that lock spends on exact use counts. */
  readonly lockSettleMs: number;
}

/** What a keyring is opened with. */
export interface OpenOptions {
  /** Loaded from a vault that is open. */
  readonly keyring: Keyring;
  readonly clock: BelievableClock;
  readonly gate: Gate;
  readonly limits: KeyringLimits;
  readonly recorder: ActRecorder;
  readonly onAct: (act: AgentAct) => void;
  /** Whether the agent may act by itself: not while nothing can be recorded. */
  readonly mayAct: () => boolean;
  readonly onWarning: (warning: string, error?: unknown) => void;
}

/** Wires what works on the keys of an open vault. */
export function openKeyring({ keyring, clock, gate, limits, recorder, onAct, mayAct, onWarning }: OpenOptions): OpenKeyring {
  keyring.finishLoading();
  clock.resume(keyring.facts);
  const aliases = new Aliases(keyring);
  const tokenWork = new TokenWork({ keyring, onWarning });
  const commitAct = makeCommitAct({ keyring, recorder, onAct });
  const creation = new Creation(keyring, aliases, tokenWork, commitAct);
  const material = new ImportedMaterial(keyring, tokenWork, commitAct);
  const onFailure = (keyId: string, error: unknown): void =>
    onWarning(`what is due for the key ${keyId} could not be done; it is tried again, and status shows what else waits for the same reason`, error);
  const scheduler = new Scheduler({ keyring, creation, material, tokenWork, commitAct, onFailure });
  const budget = new Budget({
    keyring,
    limits,
    makeVersion: (key) => creation.moveOn(key, 'budget'),
    onNearlySpent: (keyId) => onWarning(`the key ${keyId} has a version that used three quarters of its encryptions`),
  });
  const watch = new Watch({
    keyring,
    scheduler,
    clock,
    gate,
    mayAct,
    intervalMs: limits.lookIntervalMs,
    onError: (error) => onWarning('what is due could not be looked at; it is tried again', error),
    onJump: (jumpMs) => onWarning(describeJump(jumpMs)),
  });
  return {
    keyring,
    creation,
    aliases,
    life: new Life(keyring),
    material,
    cipher: new Cipher(keyring, budget),
    signer: new Signer(keyring),
    budget,
    watch,
    scheduler,
    tokenWork,
    pageTokens: new PageTokens(keyring.vault),
    nearlySpent: () => budget.nearlySpent(),
  };
}

function describeJump(jumpMs: number): string {
  if (jumpMs === 0) return 'the wall clock can be believed again; destruction and expiry go on';
  return `the wall clock jumped by ${Math.round(jumpMs / 60_000)} minutes; destruction and expiry wait for it`;
}
