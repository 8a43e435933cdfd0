import { AgentError } from '@kms-agent/protocol';
import { type ActRecorder, makeCommitAct } from '../../daemon/src/keyring/acts.ts';
import { Aliases } from '../../daemon/src/keyring/aliases.ts';
import { Creation } from '../../daemon/src/keyring/creation.ts';
import { Keyring } from '../../daemon/src/keyring/keyring.ts';
import { ImportedMaterial } from '../../daemon/src/keyring/material.ts';
import { Scheduler } from '../../daemon/src/keyring/scheduler.ts';
import { TokenWork } from '../../daemon/src/keyring/token-work.ts';
import { SoftwareProvider } from '../../daemon/src/providers/software/provider.ts';
import { Vault } from '../../daemon/src/vault/vault.ts';

/** A real keyring over a vault in memory, whose time a test sets. */
export class MemoryKeyring {
  readonly clock: { nowMs: number; runningMs: number; isBelievable: boolean } = { nowMs: 1_900_000_000_000, runningMs: 0, isBelievable: true };
  readonly provider: SoftwareProvider;
  readonly keyring: Keyring;
  readonly creation: Creation;
  readonly material: ImportedMaterial;
  readonly scheduler: Scheduler;
  /** Ids of keys of which it was said that what is due fails. */
  readonly failures: string[] = [];
  /** What the agent did by itself. */
  readonly acts: string[] = [];
  /** What it recorded of that. */
  readonly records: string[] = [];
  canRecord = true;
  readonly recorder: ActRecorder = {
    recordNow: (entry) => {
      if (!this.canRecord) throw new AgentError('ERR_AUDIT_UNAVAILABLE');
      this.recorder.note(entry);
    },
    note: ({ operation, outcome, keyId = '', error }) => this.records.push([operation, outcome, keyId, ...(error ? [error] : [])].join(' ')),
  };

  private constructor(vault: Vault, provider: SoftwareProvider) {
    const { clock } = this;
    this.provider = provider;
    this.keyring = new Keyring(vault, [provider], {
      now: () => clock.nowMs,
      isBelievable: () => clock.isBelievable,
      runningMs: () => clock.runningMs,
      sinceBoot: () => clock.runningMs,
    });
    const { keyring } = this;
    const tokenWork = new TokenWork({ keyring, onWarning: () => undefined });
    const commitAct = makeCommitAct({ keyring, recorder: this.recorder, onAct: ({ act, keyId }) => this.acts.push(`${act} ${keyId}`) });
    this.creation = new Creation(keyring, new Aliases(keyring), tokenWork, commitAct);
    this.material = new ImportedMaterial(keyring, tokenWork, commitAct);
    const { creation, material } = this;
    this.scheduler = new Scheduler({ keyring, creation, material, tokenWork, commitAct, onFailure: (keyId) => this.failures.push(keyId) });
  }

  static async make(provider = new SoftwareProvider()): Promise<MemoryKeyring> {
    const { vault } = await Vault.create({ clock: () => 0, slots: [] });
    return new MemoryKeyring(vault, provider);
  }
}
