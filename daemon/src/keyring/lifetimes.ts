import { randomFillSync } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { AgentError } from '@kms-agent/protocol';
import { collectKeyObjectsSoon } from '../os/garbage.ts';
import { allocateSecret } from '../os/secret-bytes.ts';
import { canForget, type MaterialRef, type Provider } from '../providers/provider.ts';
import { destroyMaterial } from '../providers/software/destroyed.ts';
import type { Box, Unbox } from '../vault/box.ts';
import { seal, unseal } from '../vault/seal.ts';
import { initialVersion, type Key, type KeyLifetime, type KeyVersionEntry } from './key.ts';

/** Boxes that are opened in one turn of the event loop; each takes a tenth of a millisecond. */
const openedAtOnce = 20;

const wrappingKeyBytes = 32;

/** What the box of a key's wrapping key is bound to. */
export const boxAad = (keyId: string): Buffer => Buffer.from(`kms-agent unlock lifetime 1 ${keyId}`);
const materialAad = (keyVersionId: string): Buffer => Buffer.from(`kms-agent material 1 ${keyVersionId}`);

/** A key with a lifetime, as far as its time is concerned. */
interface Life {
  readonly lifetime: KeyLifetime;
  /** On the clock that nobody can set. */
  until: number;
  /** Its end is still to come, or to be acted on. */
  isOpen: boolean;
  /** What opens the material of its versions. Absent once the time is over, and for keys in a token. */
  wrappingKey?: Uint8Array;
  /** Versions whose material was asked for. */
  readonly open: Map<string, MaterialRef>;
  /** Operations that use the material now. */
  running: number;
}

/** A key that is about to be kept, and what begins its time once it is. */
export interface LimitedKey {
  readonly key: Key;
  begin(): void;
}

/** What lifetimes work with. */
export interface LifetimesOptions {
  readonly box: () => Box;
  /** Milliseconds since the machine started, suspension included: nobody can set them. */
  readonly sinceBoot: () => number;
  readonly providers: readonly Provider[];
}

/**
 * Keys that can be used for a time after each unlock. In the vault and in memory the material of such a key in software is sealed under a wrapping key of its own,
 * and that is boxed for the root key, which is in memory during an unlock only: when the time is over, both are overwritten, and nothing that
 * the agent still holds opens them.
 */
export class Lifetimes {
  readonly #options: LifetimesOptions;
  readonly #lives = new Map<string, Life>();
  /** Nothing ends before. */
  #nextEnd = Number.POSITIVE_INFINITY;

  constructor(options: LifetimesOptions) {
    this.#options = options;
  }

  /** Whether there is any such key. */
  get isUsed(): boolean {
    return this.#lives.size > 0;
  }

  /** A key of the vault has a lifetime; its time is over until the next unlock. */
  know(keyId: string, lifetime: KeyLifetime): void {
    if (!this.#lives.has(keyId)) this.#lives.set(keyId, { lifetime, until: 0, isOpen: false, open: new Map(), running: 0 });
  }

  /** A right secret was given: every time begins anew. @throws AgentError `ERR_INTERNAL` for a box that does not open. */
  async renew(unbox: Unbox): Promise<void> {
    let opened = 0;
    for (const [keyId, life] of this.#lives) {
      if (!life.wrappingKey && life.lifetime.boxedKey.length > 0) {
        life.wrappingKey = required(unbox(boxAad(keyId), life.lifetime.boxedKey), keyId);
        opened += 1;
        if (opened % openedAtOnce === 0) await setImmediate();
      }
      this.#begin(life);
    }
  }

  /** Gives a key that was just generated, or waits for its material, a lifetime. Material of a key in software is overwritten: it is there sealed from now on. */
  limit(key: Key, seconds: number): LimitedKey {
    const wrappingKey = key.protectionLevel === 'HSM' ? undefined : randomFillSync(allocateSecret(wrappingKeyBytes));
    const lifetime = { seconds, boxedKey: wrappingKey ? this.#options.box()(boxAad(key.keyId), wrappingKey) : new Uint8Array() };
    const versions = wrappingKey ? [sealVersion(wrappingKey, initialVersion(key))] : key.versions;
    const begin = (): void => {
      this.know(key.keyId, lifetime);
      const life = this.#lives.get(key.keyId);
      if (!life) return;
      if (wrappingKey) life.wrappingKey = wrappingKey;
      this.#begin(life);
    };
    return { key: { ...key, lifetime, versions }, begin };
  }

  /** Whether a key has to wait for the next unlock. */
  isOver(keyId: string): boolean {
    const life = this.#lives.get(keyId);
    return life !== undefined && life.until <= this.#options.sinceBoot();
  }

  /** @throws AgentError `ERR_AGENT_LOCKED`: for this key it is. */
  require(keyId: string): void {
    if (this.isOver(keyId))
      throw new AgentError('ERR_AGENT_LOCKED', {
        keyId,
        hint: 'The time that this key can be used after an unlock (its unlockLifetime) is over: run kms unlock again.',
      });
  }

  /** A version as it is kept: sealed where its key has a wrapping key, and then the clear material is overwritten. @throws as require. */
  sealed<V extends Pick<KeyVersionEntry, 'material' | 'keyVersionId'>>(keyId: string, version: V): V {
    this.require(keyId);
    const wrappingKey = this.#lives.get(keyId)?.wrappingKey;
    return wrappingKey ? sealVersion(wrappingKey, version) : version;
  }

  /** Runs work with the material of a version whose use was allowed in this turn; the time may end meanwhile, the work ends first. */
  async run<T>(keyId: string, version: MaterialRef, work: (ref: MaterialRef) => Promise<T>): Promise<T> {
    const life = this.#lives.get(keyId);
    if (!life?.wrappingKey) return await work(version);
    life.running += 1;
    try {
      return await work(openVersion(life, life.wrappingKey, version));
    } finally {
      life.running -= 1;
    }
  }

  /** Overwrites the material of all keys whose time is over and that nothing uses. What a provider had made of it is gone some seconds later. @returns their ids. */
  dropOver(): string[] {
    const now = this.#options.sinceBoot();
    if (this.#nextEnd > now) return [];
    const over = [...this.#lives].filter(([, life]) => life.isOpen && life.until <= now && life.running === 0);
    let forgotten = 0;
    for (const [, life] of over) {
      forgotten += this.#forgetKeyObjects(life);
      wipe(life);
    }
    if (forgotten > 0) collectKeyObjectsSoon();
    this.#nextEnd = Number.POSITIVE_INFINITY;
    for (const { isOpen, until } of this.#lives.values()) if (isOpen && until < this.#nextEnd) this.#nextEnd = until;
    return over.map(([keyId]) => keyId);
  }

  /** Milliseconds until a time is over. */
  get nextEndMs(): number {
    return Math.max(this.#nextEnd - this.#options.sinceBoot(), 0);
  }

  /** Overwrites the material of a version that is destroyed. */
  forgetVersion(keyId: string, keyVersionId: string): void {
    const life = this.#lives.get(keyId);
    const known = life?.open.get(keyVersionId);
    if (known) destroyMaterial(known.material);
    life?.open.delete(keyVersionId);
  }

  /** A key that is gone. */
  forget(keyId: string): void {
    const life = this.#lives.get(keyId);
    if (life) wipe(life);
    this.#lives.delete(keyId);
  }

  /** Overwrites everything. */
  clear(): void {
    for (const life of this.#lives.values()) wipe(life);
    this.#lives.clear();
    this.#nextEnd = Number.POSITIVE_INFINITY;
  }

  #begin(life: Life): void {
    life.until = this.#options.sinceBoot() + life.lifetime.seconds * 1000;
    life.isOpen = true;
    this.#nextEnd = Math.min(this.#nextEnd, life.until);
  }

  /** @returns how many there were. */
  #forgetKeyObjects({ open }: Life): number {
    let forgotten = 0;
    for (const provider of this.#options.providers.filter(canForget)) for (const keyVersionId of open.keys()) if (provider.forget(keyVersionId)) forgotten += 1;
    return forgotten;
  }
}

/** Overwrites what is held of a key; what its provider made of it is the provider's to drop. */
function wipe(life: Life): void {
  for (const { material } of life.open.values()) destroyMaterial(material);
  life.open.clear();
  life.wrappingKey?.fill(0);
  delete life.wrappingKey;
  life.isOpen = false;
}

function required(plaintext: Buffer | undefined, what: string): Buffer {
  if (plaintext) return plaintext;
  throw new AgentError('ERR_INTERNAL', {}, { cause: new RangeError(`what is sealed of ${what} does not open`) });
}

/** Seals material and overwrites it. A version without material stays without. */
function sealVersion<V extends Pick<KeyVersionEntry, 'material' | 'keyVersionId'>>(wrappingKey: Uint8Array, version: V): V {
  if (version.material.length === 0) return version;
  const material = seal(wrappingKey, materialAad(version.keyVersionId), version.material);
  version.material.fill(0);
  return { ...version, material };
}

/** Each is opened once, as a provider keeps what it makes of it once. */
function openVersion(life: Life, wrappingKey: Uint8Array, version: MaterialRef): MaterialRef {
  const { keyVersionId, keySpec, publicKey } = version;
  const known = life.open.get(keyVersionId);
  if (known) return known;
  const material = required(unseal(wrappingKey, materialAad(keyVersionId), version.material), keyVersionId);
  const open = { keyVersionId, keySpec, material, ...(publicKey ? { publicKey } : {}) };
  life.open.set(keyVersionId, open);
  return open;
}
