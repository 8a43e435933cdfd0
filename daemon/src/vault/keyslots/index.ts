import { randomBytes, randomFillSync, randomUUID } from 'node:crypto';
import { AgentError, isAgentError, type Keyslot, type KeyslotType } from '@kms-agent/protocol';
import { allocateSecret } from '../../os/secret-bytes.ts';
import { deriveKey, seal, unseal } from '../seal.ts';
import { isSealedByToken, type SealedByToken, type TokenSealer } from './hsm.ts';
import { type Argon2Cost, type Argon2Queue, defaultCost } from './passphrase.ts';
import { makeRecoveryCode, parseRecoveryCode } from './recovery.ts';

/** What every slot wraps: the root key, and the start key of the audit record, which the agent never opens after init. */
export interface Wrapped {
  readonly rootKey: Buffer;
  readonly auditStartKey: Buffer;
}

/** Type and parameters of a slot: all of it is authenticated by what it wraps. */
interface SlotParameters {
  readonly keyslotId: string;
  readonly type: KeyslotType;
  readonly label: string;
  readonly creationTime: string;
  readonly salt: string;
  /** Of a passphrase slot. */
  readonly cost?: Argon2Cost;
  /** Of an hsm slot. */
  readonly hsm?: SealedByToken;
}

interface SlotBody extends SlotParameters {
  /** Not authenticated by what the slot wraps, but like all of it by the head. */
  readonly lastUnlockTime?: string;
  /** Sealed under the slot's wrapping key, base64. */
  readonly wrappedRootKey: string;
  readonly wrappedAuditStartKey: string;
}

/** The secret that a person gives: a passphrase or the recovery code. */
export interface Secret {
  readonly keyslotId?: string;
  readonly passphrase: string;
}

/** A slot to make. */
export interface NewKeyslot {
  readonly type: KeyslotType;
  readonly label?: string;
  readonly passphrase?: string;
  /** Of a credential or keychain slot: 256 random bits that lie somewhere else. */
  readonly secret?: Uint8Array;
  /** Its id, where something has been filed under it already: a UUID. */
  readonly keyslotId?: string;
  /** Of an hsm slot: what seals its wrapping key. */
  readonly sealer?: Pick<TokenSealer, 'seal'>;
}

/** Slots whose secret is a random key that is kept somewhere else. */
export type SecretKeyslotType = 'credential' | 'keychain';

/** A slot's own key, open; it wraps and unwraps both keys. */
export interface OpenKeyslot {
  readonly keyslotId: string;
  readonly wrappingKey: Buffer;
}

/** Slots that a person can open. */
const personalTypes: ReadonlySet<KeyslotType> = new Set(['passphrase', 'recovery']);

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const fromBase64 = (text: string): Buffer => Buffer.from(text, 'base64');

const isText = (value: unknown): value is string => typeof value === 'string';

/** Bounds of what a slot may ask of Argon2: a changed row must not take the machine. */
function isCost(value: unknown): value is Argon2Cost {
  if (typeof value !== 'object' || value === null) return false;
  const { memoryKiB, passes, parallelism } = value as Record<string, unknown>; // any object has such properties, or undefined
  const isBetween = (number: unknown, min: number, max: number): boolean => Number.isInteger(number) && Number(number) >= min && Number(number) <= max;
  return isBetween(memoryKiB, 8, 4_194_304) && isBetween(passes, 1, 64) && isBetween(parallelism, 1, 64);
}

/** Reads a body; undefined for what is none: somebody changed the file, and the other slots are good all the same. */
function parseBody(body: string): SlotBody | undefined {
  try {
    const value = JSON.parse(body) as Record<string, unknown> | null;
    if (typeof value !== 'object' || value === null) return undefined;
    const { keyslotId, type, label, creationTime, salt, cost, hsm, wrappedRootKey, wrappedAuditStartKey } = value;
    const texts = [keyslotId, type, label, creationTime, salt, wrappedRootKey, wrappedAuditStartKey];
    const isWhole = texts.every(isText) && (cost === undefined || isCost(cost)) && (hsm === undefined || isSealedByToken(hsm));
    return isWhole ? (value as unknown as SlotBody) : undefined; // each field was looked at
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** @throws AgentError `ERR_STATE_CONFLICT` for a body that is none. */
function readBody(body: string): SlotBody {
  const slot = parseBody(body);
  if (!slot) throw new AgentError('ERR_STATE_CONFLICT', { hint: 'A keyslot of the vault is damaged.' });
  return slot;
}

function slotAad(vaultId: Uint8Array, { keyslotId, type, label, creationTime, salt, cost, hsm }: SlotParameters, which: string): Buffer {
  const facts = ['kms-agent keyslot 1', base64(vaultId), which, keyslotId, type, label, creationTime, salt, cost ?? null];
  if (!hsm) return Buffer.from(JSON.stringify(facts));
  const ofToken = [hsm.token, hsm.material, hsm.algorithm, hsm.iv ?? null, hsm.sealed];
  return Buffer.from(JSON.stringify([...facts, ...ofToken, ...(hsm.serial === undefined ? [] : [hsm.serial])]));
}

function wrapKey(vaultId: Uint8Array, parameters: SlotParameters, wrappingKey: Uint8Array, which: string, key: Uint8Array): string {
  return base64(seal(wrappingKey, slotAad(vaultId, parameters, which), key));
}

function wrapBoth(vaultId: Uint8Array, parameters: SlotParameters, wrappingKey: Uint8Array, { rootKey, auditStartKey }: Wrapped): string {
  const body: SlotBody = {
    ...parameters,
    wrappedRootKey: wrapKey(vaultId, parameters, wrappingKey, 'root key', rootKey),
    wrappedAuditStartKey: wrapKey(vaultId, parameters, wrappingKey, 'audit start key', auditStartKey),
  };
  return JSON.stringify(body);
}

/** The ways into a vault: makes slots and opens them. */
export class Keyslots {
  readonly #vaultId: Uint8Array;
  readonly #argon2: Argon2Queue;
  readonly #cost: Argon2Cost;

  constructor(vaultId: Uint8Array, argon2: Argon2Queue, cost: Argon2Cost = defaultCost) {
    this.#vaultId = vaultId;
    this.#argon2 = argon2;
    this.#cost = cost;
  }

  /** Makes a slot. @returns its id and body, and for type recovery the code to show once. */
  async make(slot: NewKeyslot, keys: Wrapped, nowMs: number): Promise<{ keyslotId: string; body: string; recoveryCode?: string }> {
    const salt = randomBytes(32);
    const code = slot.type === 'recovery' ? makeRecoveryCode() : undefined;
    const { keyslotId = randomUUID() } = slot;
    const ofToken = slot.type === 'hsm' ? await sealNewKey(slot, keyslotId) : undefined;
    const parameters: SlotParameters = {
      keyslotId,
      type: slot.type,
      label: slot.label ?? slot.type,
      creationTime: new Date(nowMs).toISOString(),
      salt: base64(salt),
      ...(slot.type === 'passphrase' ? { cost: this.#cost } : {}),
      ...(ofToken ? { hsm: ofToken.hsm } : {}),
    };
    const wrappingKey =
      ofToken?.wrappingKey ??
      deriveFromSecret(slot, salt) ??
      (code ? deriveKey(code.secret, 'recovery keyslot', salt) : await this.#derivePassphrase(slot, salt));
    code?.secret.fill(0);
    const body = wrapBoth(this.#vaultId, parameters, wrappingKey, keys);
    wrappingKey.fill(0);
    return { keyslotId: parameters.keyslotId, body, ...(code ? { recoveryCode: code.text } : {}) };
  }

  /**
   * Finds the slot that a secret opens. A slot whose derivation fails, because somebody changed what it asks for, stands in the way of no other.
   * @throws AgentError `ERR_UNLOCK_FAILED`; `ERR_BUSY`; `ERR_TIMEOUT` or `ERR_INTERNAL` of a derivation that failed, when no other slot opens.
   */
  async open(bodies: ReadonlyMap<string, string>, secret: Secret): Promise<OpenKeyslot> {
    const code = parseRecoveryCode(secret.passphrase);
    let failure: unknown;
    try {
      for (const body of bodies.values()) {
        const slot = parseBody(body);
        if (!slot) continue; // the head names it when the vault is opened
        if (secret.keyslotId !== undefined && secret.keyslotId !== slot.keyslotId) continue;
        try {
          const wrappingKey = await this.#deriveFor(slot, code, secret.passphrase);
          if (wrappingKey && this.#opens(body, wrappingKey)) return { keyslotId: slot.keyslotId, wrappingKey };
        } catch (error) {
          if (!isAgentError(error) || error.code === 'ERR_BUSY') throw error;
          failure = error;
        }
      }
    } finally {
      code?.fill(0);
    }
    throw failure ?? new AgentError('ERR_UNLOCK_FAILED');
  }

  /** Finds the slot of a type that a random secret opens. */
  openWithSecret(bodies: ReadonlyMap<string, string>, type: SecretKeyslotType, secret: Uint8Array, keyslotId?: string): OpenKeyslot | undefined {
    for (const body of bodies.values()) {
      const slot = parseBody(body);
      if (slot?.type !== type || (keyslotId ?? slot.keyslotId) !== slot.keyslotId) continue;
      const wrappingKey = deriveKey(secret, `${type} keyslot`, fromBase64(slot.salt));
      if (this.#opens(body, wrappingKey)) return { keyslotId: slot.keyslotId, wrappingKey };
    }
    return undefined;
  }

  /** Both keys of the slot that a secret opens; they are the caller's to wipe. @throws as open; `ERR_STATE_CONFLICT` for a damaged slot. */
  async openBoth(bodies: ReadonlyMap<string, string>, secret: Secret): Promise<Wrapped> {
    return this.unwrapBoth(bodies, await this.open(bodies, secret));
  }

  /** Both keys of an open slot, whose wrapping key is zeroed. @throws AgentError `ERR_STATE_CONFLICT` for a damaged slot. */
  unwrapBoth(bodies: ReadonlyMap<string, string>, { keyslotId, wrappingKey }: OpenKeyslot): Wrapped {
    const body = bodies.get(keyslotId) ?? '';
    const rootKey = this.unwrap(body, wrappingKey, 'root key');
    const auditStartKey = this.unwrap(body, wrappingKey, 'audit start key');
    wrappingKey.fill(0);
    if (rootKey && auditStartKey) return { rootKey, auditStartKey };
    throw new AgentError('ERR_STATE_CONFLICT', { hint: 'The keyslot is damaged; use another one.' });
  }

  /** Finds a slot that a token opens. @throws AgentError `ERR_UNLOCK_FAILED` when none does. */
  async openWithToken(bodies: ReadonlyMap<string, string>, sealer: Pick<TokenSealer, 'open'>, keyslotId?: string): Promise<OpenKeyslot> {
    for (const body of bodies.values()) {
      const slot = parseBody(body);
      if (!slot?.hsm || (keyslotId ?? slot.keyslotId) !== slot.keyslotId) continue;
      const wrappingKey = await sealer.open(slot.keyslotId, slot.hsm);
      if (wrappingKey && this.#opens(body, wrappingKey)) return { keyslotId: slot.keyslotId, wrappingKey };
    }
    throw new AgentError('ERR_UNLOCK_FAILED', { hint: 'No keyslot opened without a person; give a passphrase, the recovery code, or the PIN of a token.' });
  }

  /** One of the two keys of a slot; undefined when the wrapping key or the slot is not the right one. */
  unwrap(body: string, wrappingKey: Uint8Array, which: 'root key' | 'audit start key'): Buffer | undefined {
    const slot = readBody(body);
    const sealed = which === 'root key' ? slot.wrappedRootKey : slot.wrappedAuditStartKey;
    return unseal(wrappingKey, slotAad(this.#vaultId, slot, which), fromBase64(sealed));
  }

  /** The same slot around other keys. */
  rewrap(body: string, wrappingKey: Uint8Array, keys: Wrapped): string {
    const { wrappedRootKey: _root, wrappedAuditStartKey: _audit, ...parameters } = readBody(body); // lastUnlockTime goes along
    return wrapBoth(this.#vaultId, parameters, wrappingKey, keys);
  }

  #opens(body: string, wrappingKey: Buffer): boolean {
    const rootKey = this.unwrap(body, wrappingKey, 'root key');
    rootKey?.fill(0);
    if (!rootKey) wrappingKey.fill(0);
    return rootKey !== undefined;
  }

  async #deriveFor({ type, salt, cost }: SlotBody, code: Buffer | undefined, passphrase: string): Promise<Buffer | undefined> {
    if (type === 'recovery') return code && deriveKey(code, 'recovery keyslot', fromBase64(salt));
    if (type === 'passphrase' && cost && !code) return await this.#argon2.derive(passphrase, fromBase64(salt), cost);
    return undefined;
  }

  async #derivePassphrase({ type, passphrase }: NewKeyslot, salt: Uint8Array): Promise<Buffer> {
    if (type === 'credential')
      throw new AgentError('ERR_UNSUPPORTED_OPERATION', {
        hint: "Stop the agent and run: kms-agent keyslot add credential, with --system for the system's agent",
      });
    if (type !== 'passphrase') throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: `This agent makes no ${type} keyslots.` });
    if (passphrase === undefined) throw new AgentError('ERR_INVALID_PARAMS', { path: '/passphrase', reason: 'is required for a passphrase keyslot' });
    return await this.#argon2.derive(passphrase, salt, this.#cost);
  }
}

/** The wrapping key of a slot whose secret is kept somewhere else; undefined for another slot. */
function deriveFromSecret({ type, secret }: NewKeyslot, salt: Uint8Array): Buffer | undefined {
  return (type === 'credential' || type === 'keychain') && secret ? deriveKey(secret, `${type} keyslot`, salt) : undefined;
}

/** A random wrapping key, and what a token made of it. @throws AgentError `ERR_UNSUPPORTED_OPERATION` without a token. */
async function sealNewKey({ sealer }: NewKeyslot, keyslotId: string): Promise<{ wrappingKey: Buffer; hsm: SealedByToken }> {
  if (!sealer) throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'An hsm keyslot is made by a running agent that has the token.' });
  const wrappingKey = randomFillSync(allocateSecret(32));
  return { wrappingKey, hsm: await sealer.seal(keyslotId, wrappingKey) };
}

/** The token's part of a slot; undefined for another type, or a damaged one. */
export function tokenPartOf(body: string): SealedByToken | undefined {
  return parseBody(body)?.hsm;
}

/** A slot's type; undefined for a damaged one. */
export function typeOf(body: string): KeyslotType | undefined {
  return parseBody(body)?.type;
}

/** What a slot shows of itself. @throws AgentError `ERR_STATE_CONFLICT` for a damaged one. */
export function describeKeyslot(body: string): Keyslot {
  const { keyslotId, type, label, creationTime, lastUnlockTime } = readBody(body);
  return { keyslotId, type, label, creationTime, ...(lastUnlockTime === undefined ? {} : { lastUnlockTime }) };
}

/** The same slot with the time at which it last opened the vault. */
export function withUnlockTime(body: string, nowMs: number): string {
  return JSON.stringify({ ...readBody(body), lastUnlockTime: new Date(nowMs).toISOString() });
}

/** Whether a person can open the slot. */
export function isPersonal(body: string): boolean {
  const slot = parseBody(body);
  return slot !== undefined && personalTypes.has(slot.type);
}
