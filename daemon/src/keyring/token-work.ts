import { AgentError, isAgentError, type KeySpec } from '@kms-agent/protocol';
import { isToken, type ListedKey, type MaterialRef, type NewMaterial, type Provider, type TokenProvider } from '../providers/provider.ts';
import { findVersion, type Key } from './key.ts';
import type { Keyring } from './keyring.ts';
import type { KeyringChanges } from './records.ts';

/**
 * Something that is about to happen in a token, written to the vault before it does: two stores cannot change in one step.
 * `id` is the key version, or for `wrap` the wrapping pair.
 */
export interface Intent {
  readonly id: string;
  readonly provider: string;
  readonly act: 'make' | 'destroy' | 'wrap';
  readonly keyId: string;
  readonly keySpec: KeySpec;
  /** Of `wrap`: when the pair is of no more use. */
  readonly expireTime?: number;
  /** Of `destroy`: what finds and proves the object, base64. */
  readonly material?: string;
  readonly publicKey?: string;
}

type Token = Provider & TokenProvider;

/** What the token work tells. */
export interface TokenWorkOptions {
  readonly keyring: Keyring;
  readonly onWarning: (warning: string, error?: unknown) => void;
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

const toRef = ({ id, keySpec, material = '', publicKey }: Intent): MaterialRef => ({
  keyVersionId: id,
  keySpec,
  material: Buffer.from(material, 'base64'),
  ...(publicKey === undefined ? {} : { publicKey: Buffer.from(publicKey, 'base64') }),
});

/** Ids that a warning names; the log of a token full of strange objects must not be one line of a megabyte. */
const namedIds = 10;

function nameSome(ids: readonly string[]): string {
  return ids.slice(0, namedIds).join(', ') + (ids.length > namedIds ? ` and ${ids.length - namedIds} more` : '');
}

/** Keeps vault and tokens together. Nothing is ever taken away from either because the other does not show it: it is reported. */
export class TokenWork {
  readonly #keyring: Keyring;
  readonly #onWarning: TokenWorkOptions['onWarning'];
  /** Intents of requests that run now. */
  readonly #live = new Set<string>();
  readonly #asked = new Set<Token>();
  #comparing: Promise<void> = Promise.resolve();
  readonly #reports = new Map<string, readonly string[]>();

  constructor({ keyring, onWarning }: TokenWorkOptions) {
    this.#keyring = keyring;
    this.#onWarning = onWarning;
  }

  /** What stands in a token or in the vault alone; one line each. */
  get reports(): string[] {
    return [...this.#reports.values()].flat();
  }

  /** Makes something in a provider; for a token the vault knows of it before. The commit of the key's version closes the intent. */
  async making<T>(provider: Provider, { keyId, keyVersionId, keySpec }: NewMaterial, work: () => Promise<T>): Promise<T> {
    if (!isToken(provider)) return await work();
    await this.#finishDestroying(provider, keyVersionId);
    this.#live.add(keyVersionId);
    try {
      this.#keyring.commit({ intents: [{ id: keyVersionId, provider: provider.name, act: 'make', keyId, keySpec }] });
      return await work();
    } catch (error) {
      void this.reconcile(provider); // on the next turn nobody makes it any more
      throw error;
    } finally {
      setImmediate(() => this.#live.delete(keyVersionId)); // whoever waits for the work commits in this turn
    }
  }

  /** The part of a commit that says that versions are about to be destroyed where they live. */
  destroyIntents({ keyId, provider, protectionLevel, versions }: Key): Pick<KeyringChanges, 'intents'> {
    if (protectionLevel === 'SOFTWARE') return {};
    const intents = versions
      .filter(({ material }) => material.length > 0)
      .map(({ keyVersionId, keySpec, material, publicKey }): Intent => {
        const half = publicKey ? { publicKey: base64(publicKey) } : {};
        return { id: keyVersionId, provider, act: 'destroy', keyId, keySpec, material: base64(material), ...half };
      });
    return { intents };
  }

  /** Destroys versions where they live, once the vault has let go of them. What a token cannot do now it does when it is back. */
  async destroy(key: Key): Promise<void> {
    const token = this.#token(key.provider);
    if (token) await this.#finishAll(token);
    if (key.protectionLevel === 'HSM') return; // without its token in the settings it waits for that
    for (const version of key.versions) await this.#keyring.providerOf(key).destroy(version);
  }

  /** A keyslot that was removed takes its key out of the token with it. */
  async destroyKeyslotKey(keyslotId: string, { token, material }: { token: string; material: string }): Promise<void> {
    this.#keyring.commit({ intents: [{ id: keyslotId, provider: token, act: 'destroy', keyId: keyslotId, keySpec: 'AES_256', material }] });
    const provider = this.#token(token);
    if (provider) await this.#finishAll(provider);
  }

  /** Takes back what was made for a key that cannot take it any more. */
  async discard(provider: Provider, ref: MaterialRef): Promise<void> {
    await provider.destroy(ref);
    if (isToken(provider)) this.#keyring.commit({ doneIntents: [ref.keyVersionId] });
  }

  /** Notes a wrapping pair, and drops those that the key had before. */
  async wrapping(provider: Provider, pair: { id: string; keyId: string; keySpec: KeySpec; expireTime: number }): Promise<void> {
    if (!isToken(provider)) return;
    for (const intent of this.#of(provider, 'wrap')) if (intent.keyId === pair.keyId) await this.#dropPair(provider, intent);
    this.#keyring.commit({ intents: [{ ...pair, provider: provider.name, act: 'wrap' }] });
  }

  /** Drops wrapping pairs whose time is over or whose key is gone. */
  async sweep(): Promise<void> {
    for (const provider of this.#keyring.providers.filter(isToken)) {
      if (provider.status().state !== 'ok') continue;
      const now = this.#keyring.clock.now();
      for (const intent of this.#of(provider, 'wrap'))
        if ((intent.expireTime ?? 0) <= now || !this.#keyring.findKey(intent.keyId)) await this.#dropPair(provider, intent);
    }
  }

  /** Compares vault and token, finishes what was begun, and reports what only one of them has. */
  reconcile(provider: Token): Promise<void> {
    if (this.#asked.has(provider)) return this.#comparing; // one that begins later is on its way
    this.#asked.add(provider);
    this.#comparing = this.#comparing.then(async () => {
      this.#asked.delete(provider);
      await this.#compare(provider);
    });
    return this.#comparing;
  }

  async #compare(provider: Token): Promise<void> {
    try {
      await this.#finishAll(provider);
      const shown = await provider.list();
      this.#report(provider, this.#closeMade(provider, shown), this.#findStrange(provider, shown), this.#findMissing(provider, shown));
    } catch (error) {
      if (!isAgentError(error, 'ERR_HSM_UNAVAILABLE', 'ERR_AGENT_LOCKED'))
        this.#onWarning(`the token ${provider.name} could not be compared with the vault`, error);
    }
  }

  #token(name: string): Token | undefined {
    return this.#keyring.providers.filter(isToken).find((provider) => provider.name === name);
  }

  #of(provider: Provider, act: Intent['act']): Intent[] {
    return this.#keyring.tokens.intents.filter((intent) => intent.provider === provider.name && intent.act === act);
  }

  async #finishAll(provider: Token): Promise<void> {
    for (const { id } of this.#of(provider, 'destroy'))
      await this.#finishDestroying(provider, id).catch((error: unknown) => this.#noteLeft(provider, id, error));
  }

  async #finishDestroying(provider: Token, id: string): Promise<void> {
    const intent = this.#of(provider, 'destroy').find((candidate) => candidate.id === id);
    if (!intent) return;
    await provider.destroy(toRef(intent));
    this.#keyring.commit({ doneIntents: [id] });
  }

  /** A destruction that must wait is still wanted; an object that is not ours is nobody's to destroy. */
  #noteLeft(provider: Token, id: string, error: unknown): void {
    if (!isAgentError(error)) throw error;
    if (!isAgentError(error, 'ERR_AGENT_LOCKED'))
      this.#onWarning(`the object ${id} could not be destroyed in the token ${provider.name}; it is tried again when the token is there anew`, error);
  }

  async #dropPair(provider: Token, { id }: Intent): Promise<void> {
    try {
      await provider.dropWrappingPair(id);
      this.#keyring.commit({ doneIntents: [id] });
    } catch (error) {
      if (!isAgentError(error)) throw error;
      this.#onWarning(`the wrapping pair ${id} is still in the token ${provider.name}`, error);
    }
  }

  /** Intents whose request is over: without an object there is nothing to do, with one it stands in the token alone. */
  #closeMade(provider: Token, shown: readonly ListedKey[]): string[] {
    const ids = new Set(shown.map(({ keyVersionId }) => keyVersionId));
    const over = this.#of(provider, 'make').filter(({ id }) => !this.#live.has(id) && !this.#isFilled(id));
    const nothing = over.filter(({ id }) => !ids.has(id)).map(({ id }) => id);
    if (nothing.length > 0) this.#keyring.commit({ doneIntents: nothing });
    return over.filter(({ id }) => ids.has(id)).map(({ id }) => id);
  }

  /** Whether an object of a token belongs to a key version or a keyslot of this vault. */
  #isKnown(id: string): boolean {
    return this.#keyring.keyByVersion(id) !== undefined || this.#keyring.vault.hasKeyslot(id);
  }

  /** Whether what was to be made is there: a version with material, or a keyslot. */
  #isFilled(id: string): boolean {
    const key = this.#keyring.keyByVersion(id);
    return key ? findVersion(key, id).material.length > 0 : this.#keyring.vault.hasKeyslot(id);
  }

  #versionsIn(provider: string): string[] {
    return [...this.#keyring.tokens.keyIds].flatMap((keyId) => {
      const key = this.#keyring.findKey(keyId);
      if (key?.provider !== provider) return [];
      return key.versions.filter(({ material }) => material.length > 0).map(({ keyVersionId }) => keyVersionId);
    });
  }

  #findStrange(provider: Token, shown: readonly ListedKey[]): string[] {
    const noted = new Set(this.#keyring.tokens.intents.filter((intent) => intent.provider === provider.name).map(({ id }) => id));
    return shown
      .filter(({ keyVersionId: id, label }) => label.startsWith('kms-agent ') && !noted.has(id) && !this.#live.has(id) && !this.#isKnown(id))
      .map(({ keyVersionId }) => keyVersionId);
  }

  #findMissing(provider: Token, shown: readonly ListedKey[]): string[] {
    const ids = new Set(shown.map(({ keyVersionId }) => keyVersionId));
    const missing = this.#versionsIn(provider.name).filter((id) => !ids.has(id));
    for (const id of missing) provider.markMissing(id);
    return missing;
  }

  #report({ name }: Token, interrupted: readonly string[], strange: readonly string[], missing: readonly string[]): void {
    const lines = [
      interrupted.length > 0
        ? `The token ${name} holds ${interrupted.length} objects of creations that were cut off; no key uses them, and they can be deleted with the vendor's tool: ${nameSome(interrupted)}.`
        : '',
      strange.length > 0 ? `The token ${name} holds ${strange.length} objects of an agent that this vault does not know: ${nameSome(strange)}.` : '',
      missing.length > 0
        ? `The token ${name} does not show ${missing.length} key versions of the vault; their keys are Unavailable: ${nameSome(missing)}.`
        : '',
    ].filter((line) => line !== '');
    const before = this.#reports.get(name) ?? [];
    for (const line of lines) if (!before.includes(line)) this.#onWarning(line);
    this.#reports.set(name, lines);
  }
}

/** The error of a key that has no token to live in. */
export const noToken = (): AgentError => new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'This agent has no token; tokens are set in the settings file.' });
