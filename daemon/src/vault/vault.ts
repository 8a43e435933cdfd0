import { randomBytes } from 'node:crypto';
import { type AddKeyslotResult, AgentError, type Keyslot, type KeyslotType } from '@kms-agent/protocol';
import { allocateSecret } from '../os/secret-bytes.ts';
import { type Box, deriveBoxKey, type Unbox, unboxWith } from './box.ts';
import { type Finding, VaultDamagedError } from './damage.ts';
import { Database, type DeletedRow, type RecordRow } from './database.ts';
import { claimFolder, type FolderClaim, nameFinished, removeUnfinished, startFile, vaultPath } from './folder.ts';
import { type Head, hashKeyslots } from './head.ts';
import { deriveState, inspect, type Mentions, type OpenRecord, type OpenState, type Purpose, type Visit, wipeState } from './inspection.ts';
import type { SealedByToken, TokenSealer } from './keyslots/hsm.ts';
import {
  describeKeyslot,
  isPersonal,
  Keyslots,
  type NewKeyslot,
  type OpenKeyslot,
  type Secret,
  type SecretKeyslotType,
  tokenPartOf,
  typeOf,
  type Wrapped,
  withUnlockTime,
} from './keyslots/index.ts';
import { type Argon2Cost, Argon2Queue } from './keyslots/passphrase.ts';
import { type Moving, moveRecords } from './moving.ts';
import { recordAad, seal, tagOf } from './seal.ts';

/** A record to write or to delete. */
export type Change = OpenRecord | DeletedRow;

/** An open slot and the root key that it gave. */
export interface Opening {
  readonly keyslotId: string;
  readonly rootKey: Buffer;
  /** There only for a vault that has never been open beside an audit record. */
  readonly auditStartKey?: Buffer;
  wipe(): void;
}

/** Opens the boxes of a vault with what a keyslot gave; of use as long as that is not wiped. */
export const unboxerOf = ({ rootKey }: Pick<Opening, 'rootKey'>): Unbox => unboxWith(deriveBoxKey(rootKey));

export interface VaultOptions {
  /** Folder of the vault; undefined for one that lives in memory. */
  readonly dataDir?: string;
  readonly clock: () => number;
  readonly argon2Cost?: Argon2Cost;
}

/**
 * What is kept on disk: keyslots around one root key, and records sealed under keys derived from it.
 * A commit is durable before it returns. Locked, it holds no key.
 */
export class Vault {
  #db: Database;
  readonly #claim: FolderClaim | undefined;
  readonly #vaultId: Uint8Array;
  readonly #clock: () => number;
  readonly #slots: Keyslots;
  #bodies: Map<string, string>;
  #open: OpenState | undefined;

  private constructor(db: Database, claim: FolderClaim | undefined, { clock, argon2Cost }: VaultOptions) {
    this.#db = db;
    this.#claim = claim;
    this.#vaultId = db.vaultId;
    this.#clock = clock;
    this.#slots = new Keyslots(this.#vaultId, new Argon2Queue(), argon2Cost);
    this.#bodies = db.keyslots();
  }

  /**
   * Makes a new vault, open, with the slots that are asked for.
   * @returns the vault, and the recovery code if a recovery slot is among them.
   * @throws AgentError `ERR_ALREADY_EXISTS`; `ERR_STATE_CONFLICT` when an agent holds the folder; `ERR_STORE_UNAVAILABLE`.
   */
  static async create(options: VaultOptions & { slots: readonly NewKeyslot[]; keys?: Wrapped }): Promise<{ vault: Vault; recoveryCode?: string }> {
    const claim = options.dataDir === undefined ? undefined : claimFolder(options.dataDir, 'new');
    try {
      const keys = options.keys ?? { rootKey: randomBytes(32), auditStartKey: randomBytes(32) };
      const vaultId = randomBytes(16);
      const keyslots = new Keyslots(vaultId, new Argon2Queue(), options.argon2Cost);
      const made = await Promise.all(options.slots.map((slot) => keyslots.make(slot, keys, options.clock())));
      const vault = Vault.#build(options, claim, vaultId, keys.rootKey, new Map(made.map(({ keyslotId, body }) => [keyslotId, body])));
      keys.rootKey.fill(0);
      keys.auditStartKey.fill(0);
      const recoveryCode = made.find((slot) => slot.recoveryCode !== undefined)?.recoveryCode;
      return { vault, ...(recoveryCode === undefined ? {} : { recoveryCode }) };
    } catch (error) {
      claim?.release();
      throw error;
    }
  }

  /** Builds the file aside and gives it its name when it is whole: an attempt that fails leaves no half vault. */
  static #build(options: VaultOptions, claim: FolderClaim | undefined, vaultId: Uint8Array, rootKey: Buffer, bodies: Map<string, string>): Vault {
    const path = options.dataDir === undefined ? undefined : vaultPath(options.dataDir);
    try {
      const vault = new Vault(Database.create(path === undefined ? ':memory:' : startFile(path), vaultId), claim, options);
      vault.#open = deriveState(rootKey);
      vault.#write([], bodies);
      if (path === undefined) return vault;
      vault.#db.leaveLog();
      vault.#db.close();
      nameFinished(path);
      vault.#db = Database.open(path);
      return vault;
    } catch (error) {
      if (path !== undefined) removeUnfinished(path);
      throw error;
    }
  }

  /**
   * Opens a vault, locked, and keeps every other agent out of it.
   * @throws AgentError `ERR_NOT_INITIALIZED`; `ERR_STATE_CONFLICT` when another agent holds it or its files are open to others; `ERR_STORE_UNAVAILABLE`.
   */
  static open(options: VaultOptions & { dataDir: string }): Vault {
    const claim = claimFolder(options.dataDir, 'existing');
    try {
      return new Vault(Database.open(vaultPath(options.dataDir)), claim, options);
    } catch (error) {
      claim.release();
      throw error;
    }
  }

  /** Of the newest change. @throws AgentError `ERR_AGENT_LOCKED`. */
  get revision(): bigint {
    return this.#requireOpen().head.revision;
  }

  /** Of the newest change of one record. */
  revisionOf(kind: string, id: string): bigint | undefined {
    return this.#requireOpen().index.get(kind, id)?.revision;
  }

  get state(): 'LOCKED' | 'UNLOCKED' {
    return this.#open ? 'UNLOCKED' : 'LOCKED';
  }

  /** Finds the slot that a secret opens and takes the root key out of it. @throws AgentError `ERR_UNLOCK_FAILED`, `ERR_BUSY`. */
  async openKeyslot(secret: Secret): Promise<Opening> {
    return this.#openWith(await this.#slots.open(this.#bodies, secret));
  }

  /** Finds the slot that a token opens. @throws AgentError `ERR_UNLOCK_FAILED`; as the token's provider. */
  async openHsmKeyslot(sealer: Pick<TokenSealer, 'open'>, keyslotId?: string): Promise<Opening> {
    return this.#openWith(await this.#slots.openWithToken(this.#bodies, sealer, keyslotId));
  }

  /** Finds the slot of a type that a random secret opens. */
  openSecretKeyslot(type: SecretKeyslotType, secret: Uint8Array, keyslotId?: string): Opening | undefined {
    const slot = this.#slots.openWithSecret(this.#bodies, type, secret, keyslotId);
    return slot && this.#openWith(slot);
  }

  /** Ids of the slots of a type. */
  keyslotsOf(type: KeyslotType): string[] {
    return [...this.#bodies].flatMap(([keyslotId, body]) => (typeOf(body) === type ? [keyslotId] : []));
  }

  #openWith(slot: OpenKeyslot): Opening {
    const body = this.#bodies.get(slot.keyslotId) ?? '';
    const rootKey = this.#slots.unwrap(body, slot.wrappingKey, 'root key');
    const auditStartKey = this.#db.find('audit', 'state') ? undefined : this.#slots.unwrap(body, slot.wrappingKey, 'audit start key');
    slot.wrappingKey.fill(0);
    if (!rootKey) throw new AgentError('ERR_UNLOCK_FAILED');
    const wipe = (): void => void [rootKey, auditStartKey].map((key) => key?.fill(0));
    return { keyslotId: slot.keyslotId, rootKey, ...(auditStartKey ? { auditStartKey } : {}), wipe };
  }

  /** Proves a secret without opening anything. @returns the id of its slot. @throws as openKeyslot. */
  async verifySecret(secret: Secret): Promise<string> {
    const opening = await this.openKeyslot(secret);
    opening.wipe();
    return opening.keyslotId;
  }

  /**
   * Opens the vault with a root key and checks every record against the head.
   * @param opening - stays the caller's to wipe: the vault keeps what it needs from day to day, and not the root key.
   * @param visit - gets each record as it is opened, and zeroes its plaintext; what it got is void when this throws.
   * @throws VaultDamagedError that names what is wrong; the vault stays locked.
   */
  async unlockWith(opening: Opening, mentions: Mentions, visit: Visit): Promise<void> {
    const state = deriveState(opening.rootKey);
    const findings = await inspect(this.#db, this.#vaultId, state, mentions, visit);
    if (findings.length > 0) {
      wipeState(state);
      throw new VaultDamagedError(findings);
    }
    this.#open = state;
  }

  /** Opens what can be opened of a damaged vault and says what cannot. The vault stays locked. */
  async salvageWith(opening: Opening, mentions: Mentions): Promise<{ findings: Finding[]; records: OpenRecord[] }> {
    const state = deriveState(opening.rootKey);
    const records: OpenRecord[] = [];
    const findings = await inspect(this.#db, this.#vaultId, state, mentions, (record) => records.push(record), { tolerant: true });
    wipeState(state);
    return { findings, records };
  }

  /**
   * Writes changes in one transaction; durable when it returns.
   * @throws AgentError `ERR_AGENT_LOCKED`; `ERR_STORE_UNAVAILABLE`: nothing changed.
   */
  commit(changes: readonly Change[]): void {
    this.#write(changes);
  }

  /** Whether the vault was put back from a backup and nobody has taken note yet. */
  get wasRestored(): boolean {
    return this.#db.wasRestored;
  }

  /** Commits what takes note of a restored backup, and takes its mark away in the same transaction. */
  commitRestored(changes: readonly Change[]): void {
    this.#write(changes, undefined, true);
  }

  /** Marks the vault as put back from older records. */
  markRestored(): void {
    this.#db.markRestored();
  }

  /** Overwrites what the file may still hold of records that are gone or were replaced. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  scrub(): void {
    this.#db.scrub();
  }

  /** A 32-byte key for one purpose, bound to this vault; the caller's to wipe. @throws AgentError `ERR_AGENT_LOCKED`. */
  deriveKey(purpose: Purpose): Buffer {
    const key = this.#requireOpen().purposeKeys.get(purpose);
    const copy = allocateSecret(32);
    copy.set(key ?? []);
    return copy;
  }

  /** Boxes what can be opened at an unlock only. @throws AgentError `ERR_AGENT_LOCKED`. */
  get box(): Box {
    return this.#requireOpen().box;
  }

  /** Zeroes every key and moves the log into the file. */
  lock(): void {
    if (this.#open) wipeState(this.#open);
    this.#open = undefined;
    this.#db.checkpoint();
  }

  /** Remembers when a slot opened the vault. @throws AgentError `ERR_AGENT_LOCKED`, `ERR_STORE_UNAVAILABLE`. */
  noteUnlock(keyslotId: string): void {
    const body = this.#bodies.get(keyslotId);
    if (body !== undefined) this.#write([], new Map(this.#bodies).set(keyslotId, withUnlockTime(body, this.#clock())));
  }

  hasKeyslot(keyslotId: string): boolean {
    return this.#bodies.has(keyslotId);
  }

  /** Slots that tokens open, and what their tokens need. */
  get hsmKeyslots(): ReadonlyMap<string, SealedByToken> {
    return new Map(
      [...this.#bodies].flatMap(([keyslotId, body]) => {
        const part = tokenPartOf(body);
        return part ? [[keyslotId, part] as const] : [];
      }),
    );
  }

  listKeyslots(): Keyslot[] {
    return [...this.#bodies.values()].map(describeKeyslot);
  }

  /** Adds a slot. @throws AgentError `ERR_UNLOCK_FAILED` when the proof is wrong; `ERR_UNSUPPORTED_OPERATION` for a type this agent cannot make. */
  async addKeyslot({ proof, ...slot }: NewKeyslot & { proof: Secret }): Promise<AddKeyslotResult> {
    this.#requireOpen();
    const keys = await this.#slots.openBoth(this.#bodies, proof);
    const { keyslotId, body, recoveryCode } = await this.#slots.make(slot, keys, this.#clock());
    keys.rootKey.fill(0);
    keys.auditStartKey.fill(0);
    this.#write([], new Map([...this.#bodies, [keyslotId, body]]));
    return { keyslot: describeKeyslot(body), ...(recoveryCode === undefined ? {} : { recoveryCode }) };
  }

  /** Removes a slot. @throws AgentError `ERR_UNLOCK_FAILED`; `ERR_STATE_CONFLICT` for the last one that a person can open, or one that is not there. */
  async removeKeyslot({ keyslotId, proof }: { keyslotId: string; proof: Secret }): Promise<void> {
    this.#requireOpen();
    await this.verifySecret(proof);
    const kept = new Map(this.#bodies);
    if (!kept.delete(keyslotId)) throw new AgentError('ERR_STATE_CONFLICT', { hint: 'There is no such keyslot; listKeyslots shows them.' });
    if (![...kept.values()].some(isPersonal))
      throw new AgentError('ERR_STATE_CONFLICT', { hint: 'This is the last keyslot that a person can open; add another first.' });
    this.#write([], kept);
  }

  /**
   * Makes a new root key and seals everything anew, in one transaction. Only the slot of the proof is kept, and a new recovery slot is made:
   * the other slots' secrets are not known, and old copies of them open only the old root key.
   */
  async rekey(proof: Secret, moving: Moving): Promise<{ recoveryCode: string; droppedKeyslots: Keyslot[] }> {
    const slot = await this.#slots.open(this.#bodies, proof);
    const old = this.#slots.unwrapBoth(this.#bodies, { ...slot, wrappingKey: Buffer.from(slot.wrappingKey) });
    const records: OpenRecord[] = [];
    const opening = { keyslotId: slot.keyslotId, rootKey: old.rootKey, wipe: () => undefined };
    await this.unlockWith(
      opening,
      () => [],
      (record) => records.push(record),
    );
    const keys = { rootKey: randomBytes(32), auditStartKey: old.auditStartKey };
    const kept = this.#slots.rewrap(this.#bodies.get(slot.keyslotId) ?? '', slot.wrappingKey, keys);
    const recovery = await this.#slots.make({ type: 'recovery' }, keys, this.#clock());
    const droppedKeyslots = this.listKeyslots().filter(({ keyslotId }) => keyslotId !== slot.keyslotId);
    const { revision } = this.#requireOpen().head;
    this.lock();
    this.#open = deriveState(keys.rootKey);
    this.#open.head.revision = revision;
    const moved = moveRecords(records, moving, old.rootKey, this.box);
    this.#write(
      moved,
      new Map([
        [slot.keyslotId, kept],
        [recovery.keyslotId, recovery.body],
      ]),
    );
    for (const secret of [slot.wrappingKey, old.rootKey, old.auditStartKey, keys.rootKey, ...[...records, ...moved].map(({ plaintext }) => plaintext)])
      secret.fill(0);
    return { recoveryCode: recovery.recoveryCode ?? '', droppedKeyslots };
  }

  /** Writes a consistent sealed copy. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  async backup(path: string): Promise<void> {
    await this.#db.backup(path);
  }

  close(): void {
    this.lock();
    this.#db.close();
    this.#claim?.release();
  }

  #requireOpen(): OpenState {
    if (!this.#open) throw new AgentError('ERR_AGENT_LOCKED');
    return this.#open;
  }

  /** Memory follows the disk: the new head and slots count only after the transaction is durable. */
  #write(changes: readonly Change[], keyslots?: Map<string, string>, clearRestored = false): void {
    const state = this.#requireOpen();
    const head = state.head.clone();
    head.revision += 1n;
    const rows = changes.map((change) => this.#sealRow(state, head, change));
    if (keyslots) head.keyslotsHash = hashKeyslots(keyslots);
    const sealedHead = seal(state.headSealingKey, recordAad(this.#vaultId, 'head', '', head.revision), head.encode());
    this.#db.write({ records: rows, head: { revision: head.revision, sealed: sealedHead }, clearRestored, ...(keyslots ? { keyslots } : {}) });
    state.head = head;
    if (keyslots) this.#bodies = keyslots;
    for (const row of rows) {
      if ('deleted' in row) state.index.delete(row.kind, row.id);
      else state.index.set(row.kind, row.id, { revision: row.revision, tag: tagOf(row.sealed) });
    }
  }

  #sealRow({ recordsKey, index }: OpenState, head: Head, change: Change): RecordRow | DeletedRow {
    const { kind, id } = change;
    const old = index.get(kind, id);
    if (old) head.remove({ kind, id, ...old });
    if ('deleted' in change) return change;
    const sealed = seal(recordsKey, recordAad(this.#vaultId, kind, id, head.revision), change.plaintext);
    head.add({ kind, id, revision: head.revision, tag: tagOf(sealed) });
    return { kind, id, revision: head.revision, sealed };
  }
}
