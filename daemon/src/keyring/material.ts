import { randomUUID } from 'node:crypto';
import { AgentError, type GetParametersForImportParams, type ImportWrappingAlgorithm } from '@kms-agent/protocol';
import { canImport, type Importer, isToken, type NewMaterial, type Provider } from '../providers/provider.ts';
import { seal, unseal } from '../vault/seal.ts';
import type { CommitAct } from './acts.ts';
import { makeCheck, requireSame } from './check-value.ts';
import { initialVersion, type Key, type KeyVersionEntry } from './key.ts';
import type { Imported } from './key-event.ts';
import { KeyTurns } from './key-turns.ts';
import type { Keyring } from './keyring.ts';
import { refuseAlgorithm, requireExternal, requireUnprotected, unsupported } from './rules.ts';
import type { TokenWork } from './token-work.ts';

/** How long an import token is good. */
const tokenLifetimeMs = 24 * 3_600_000;

/** What an import token says, sealed: it is the agent's own note to itself, so that a restart or a lock between the two calls loses nothing. */
interface TokenNote {
  readonly expireTime: number;
  readonly algorithm: ImportWrappingAlgorithm;
}

/** What getParametersForImport answers. */
export interface ImportParameters {
  readonly importToken: Uint8Array<ArrayBuffer>;
  /** SPKI DER. */
  readonly publicKey: Uint8Array;
  readonly wrappingAlgorithm: ImportWrappingAlgorithm;
  readonly expireTime: number;
}

/** The latest time at which material may expire: what a record keeps of times has room for no later one. */
const latestExpireTime = Date.UTC(6000, 0);

/** @throws AgentError `ERR_INVALID_PARAMS`. */
function checkExpiry(expireTime: number | undefined, now: number): void {
  if (expireTime === undefined || (expireTime > now && expireTime < latestExpireTime)) return;
  const reason = expireTime <= now ? 'must be in the future' : 'must be before the year 6000; leave it out for material that does not expire';
  throw new AgentError('ERR_INVALID_PARAMS', { path: '/materialExpireTime', reason });
}

/** Protection against deletion is also one against an end that is set or moved ahead. @throws AgentError `ERR_DELETION_PROTECTED`. */
function requireNoEarlierEnd(key: Key, expireTime: number | undefined): void {
  if (initialVersion(key).material.length === 0 || expireTime === undefined) return;
  if (expireTime < (key.materialExpireTime ?? Number.POSITIVE_INFINITY)) requireUnprotected(key);
}

const tokenAad = (keyId: string): Buffer => Buffer.from(`kms-agent import token 1 ${keyId}`);

/** Material from outside: wrapped for the agent by its owner, imported, deleted, expired, and imported again. */
export class ImportedMaterial {
  readonly #keyring: Keyring;
  readonly #tokenWork: TokenWork;
  readonly #commitAct: CommitAct;
  /** What comes into a key and what goes out of it never cross: the key would say that it has what is being destroyed. */
  readonly #turns = new KeyTurns();

  /** @param commitAct - keeps what the agent does to material by itself. */
  constructor(keyring: Keyring, tokenWork: TokenWork, commitAct: CommitAct) {
    this.#keyring = keyring;
    this.#tokenWork = tokenWork;
    this.#commitAct = commitAct;
  }

  /**
   * Makes a wrapping pair and the token that goes with it. Costs a generation of an RSA pair.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a generated key; `ERR_UNSUPPORTED_ALGORITHM`.
   */
  async parameters(key: Key, { wrappingKeySpec = 'RSA_3072', wrappingAlgorithm }: Omit<GetParametersForImportParams, 'keyId'>): Promise<ImportParameters> {
    requireExternal(key);
    const importer = this.#importerOf(key);
    await importer.ready();
    const offered = importer.importAlgorithms(key.keySpec);
    const algorithm = wrappingAlgorithm ?? offered[0];
    if (offered.length === 0) throw refuseAlgorithm(importer, { keySpec: key.keySpec, wanted: 'import' }, 'The token takes in no material of this kind.');
    if (!algorithm || !offered.includes(algorithm)) throw new AgentError('ERR_UNSUPPORTED_ALGORITHM', { hint: `This key takes ${offered.join(' or ')}.` });
    this.#keyring.requireState(key, 'importParameters');
    const expireTime = this.#keyring.clock.now() + tokenLifetimeMs;
    const id = randomUUID();
    await this.#tokenWork.wrapping(importer, { id, keyId: key.keyId, keySpec: key.keySpec, expireTime });
    const label = `kms-agent import into ${key.keyId}`;
    const { publicKey, state } = await importer.makeWrappingPair({ id, keySpec: wrappingKeySpec, algorithm, label });
    const importToken = this.#sealToken(key.keyId, { expireTime, algorithm }, state);
    state.fill(0);
    return { importToken, publicKey, wrappingAlgorithm: algorithm, expireTime };
  }

  /**
   * Unwraps material and puts it into the key; the same material may be imported again, and no other.
   * @throws AgentError `ERR_IMPORT_TOKEN_INVALID`, `ERR_IMPORT_TOKEN_EXPIRED`, `ERR_INVALID_KEY_MATERIAL`, `ERR_STATE_CONFLICT`, `ERR_INVALID_PARAMS`.
   */
  async import(key: Key, token: Uint8Array, wrapped: Uint8Array, expireTime?: number): Promise<{ key: Key; unwrappedIn: 'TOKEN' | 'AGENT' }> {
    requireExternal(key);
    return await this.#turns.run(key.keyId, async () => await this.#import(this.#keyring.keyById(key.keyId), token, wrapped, expireTime));
  }

  async #import(key: Key, token: Uint8Array, wrapped: Uint8Array, expireTime?: number): Promise<{ key: Key; unwrappedIn: 'TOKEN' | 'AGENT' }> {
    const importer = this.#importerOf(key);
    this.#keyring.requireState(key, 'importMaterial');
    this.#keyring.lifetimes.require(key.keyId);
    checkExpiry(expireTime, this.#keyring.clock.now());
    requireNoEarlierEnd(key, expireTime);
    const { algorithm, state } = this.#openToken(key.keyId, token);
    const version = initialVersion(key);
    const made: NewMaterial = { keyId: key.keyId, keyVersionId: version.keyVersionId, keySpec: key.keySpec, keyUsage: key.keyUsage };
    const hasMaterial = version.material.length > 0;
    const previous = isToken(importer) && key.checkValue !== undefined ? { previous: key.checkValue } : {};
    const unwrapping = this.#tokenWork.making(importer, made, () => importer.unwrap(made, { algorithm, state, wrapped, hasMaterial, ...previous }));
    const { unwrappedIn, checkValue, ...imported } = await unwrapping.finally(() => state.fill(0));
    const fill = (): Key => this.#fill(key.keyId, { version: imported, ...(checkValue === undefined ? {} : { checkValue }) }, expireTime);
    try {
      const filled = hasMaterial ? fill() : await this.#tokenWork.keeping(importer, { keyId: key.keyId, ...version, ...imported }, fill);
      if (hasMaterial && !isToken(importer)) await importer.destroy(version); // the same bytes stand in the new one
      return { key: filled, unwrappedIn };
    } catch (error) {
      if (!isToken(importer)) imported.material.fill(0);
      throw error;
    }
  }

  /** Puts what was unwrapped into the key as it is now: it may have changed meanwhile. */
  #fill(keyId: string, { version, checkValue }: Omit<Imported, 'checkValue'> & { checkValue?: string }, expireTime: number | undefined): Key {
    const now = this.#keyring.keyById(keyId);
    this.#keyring.requireState(now, 'importMaterial');
    requireNoEarlierEnd(now, expireTime);
    if (checkValue === undefined) requireSame(now, version.material, () => this.#keyring.vault.deriveKey('import check value'));
    const check = checkValue === undefined ? makeCheck(keyId, version.material) : { checkValue };
    const { keyVersionId } = initialVersion(now);
    const { material } = this.#keyring.lifetimes.sealed(keyId, { keyVersionId, material: version.material });
    const imported: Imported = {
      version: { ...version, material },
      ...check,
      ...(expireTime === undefined ? {} : { materialExpireTime: expireTime }),
    };
    const filled = this.#keyring.after(now, { event: 'importMaterial', imported });
    this.#keyring.commit({ keys: [filled] });
    return filled;
  }

  /** Deletes the material at once and for good where the agent keeps it. @throws AgentError `ERR_UNSUPPORTED_OPERATION`, `ERR_DELETION_PROTECTED`. */
  async delete(key: Key): Promise<Key> {
    requireExternal(key);
    return await this.#turns.run(key.keyId, async () => {
      const emptied = await this.#drop(this.#keyring.keyById(key.keyId), 'deleteMaterial');
      this.#keyring.scrub();
      return emptied;
    });
  }

  /** Drops material whose time is over. The file is to be scrubbed afterwards. @returns false when other material, or another time, has come meanwhile. */
  async expire({ keyId, materialExpireTime }: Key): Promise<boolean> {
    return await this.#turns.run(keyId, async () => {
      const now = this.#keyring.findKey(keyId);
      if (!now || now.materialExpireTime !== materialExpireTime || initialVersion(now).material.length === 0) return false;
      await this.#drop(now, 'expire');
      return true;
    });
  }

  /** The key waits for its material to be imported again. @throws as delete. */
  async #drop(key: Key, event: 'deleteMaterial' | 'expire'): Promise<Key> {
    const old: KeyVersionEntry = initialVersion(key);
    const emptied = this.#keyring.after(key, { event });
    const changes = { keys: [emptied], ...this.#tokenWork.destroyIntents(key) };
    if (event === 'expire') this.#commitAct({ act: event, keyId: key.keyId }, changes);
    else {
      requireUnprotected(key);
      this.#keyring.commit(changes);
    }
    await this.#tokenWork.destroy({ ...key, versions: [old] });
    return emptied;
  }

  #importerOf(key: Key): Importer & Provider {
    const provider = this.#keyring.providerOf(key);
    if (!canImport(provider)) throw unsupported('Material cannot be imported where this key lives.');
    return provider;
  }

  /** Sealed: u16 length ‖ JSON of the note ‖ state of the wrapping pair, which is bytes and never text. */
  #sealToken(keyId: string, note: TokenNote, state: Uint8Array): Uint8Array<ArrayBuffer> {
    const json = Buffer.from(JSON.stringify(note));
    const plaintext = Buffer.alloc(2 + json.length + state.length);
    plaintext.set(json, plaintext.writeUInt16BE(json.length));
    plaintext.set(state, 2 + json.length);
    const tokenKey = this.#keyring.vault.deriveKey('import token');
    const sealed = seal(tokenKey, tokenAad(keyId), plaintext);
    tokenKey.fill(0);
    plaintext.fill(0);
    return new Uint8Array(sealed);
  }

  #openToken(keyId: string, token: Uint8Array): TokenNote & { state: Buffer } {
    const tokenKey = this.#keyring.vault.deriveKey('import token');
    const plaintext = unseal(tokenKey, tokenAad(keyId), token);
    tokenKey.fill(0);
    if (!plaintext) throw new AgentError('ERR_IMPORT_TOKEN_INVALID');
    const stateStart = 2 + plaintext.readUInt16BE();
    const note = JSON.parse(plaintext.toString('utf8', 2, stateStart)) as TokenNote; // authenticated: only sealToken writes it
    if (note.expireTime > this.#keyring.clock.now()) return { ...note, state: plaintext.subarray(stateStart) };
    plaintext.fill(0);
    throw new AgentError('ERR_IMPORT_TOKEN_EXPIRED');
  }
}
