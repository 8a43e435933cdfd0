import type { Audit } from '../audit/audit.ts';
import type { ReadFacts } from '../caller/process.ts';
import type { Settings } from '../config.ts';
import type { ListenAddress } from '../front/listener.ts';
import type { Agent } from '../keyring/agent.ts';
import type { TimeSource } from '../keyring/clock.ts';
import type { Log } from '../log.ts';
import type { LockMark } from '../vault/lock-mark.ts';
import type { Vault } from '../vault/vault.ts';

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
