import { AgentError, isAgentError, type KeySpec } from '@kms-agent/protocol';
import { isToken, type MaterialRef, type NewMaterial, type Provider, type TokenProvider } from '../providers/provider.ts';
import { destroyIntent, type Intent, toRef } from './intent.ts';
import type { Key } from './key.ts';
import type { Keyring } from './keyring.ts';
import type { KeyringChanges } from './records.ts';
import { TokenComparison } from './token-comparison.ts';

/** A provider that is a token. */
export type Token = Provider & TokenProvider;

/** What the token work tells. */
export interface TokenWorkOptions {
  readonly keyring: Keyring;
  readonly onWarning: (warning: string, error?: unknown) => void;
}

/** Keeps vault and tokens together. Nothing is ever taken away from either because the other does not show it: it is reported. */
export class TokenWork {
  readonly #keyring: Keyring;
  readonly #onWarning: TokenWorkOptions['onWarning'];
  /** Intents of requests that run now, and how many hold each. */
  readonly #live = new Map<string, number>();
  readonly #asked = new Set<Token>();
  #comparing: Promise<void> = Promise.resolve();
  readonly #comparison: TokenComparison;
  /** Tokens of which it was said that destructions wait for them. */
  readonly #behind = new Set<Token>();

  constructor({ keyring, onWarning }: TokenWorkOptions) {
    this.#keyring = keyring;
    this.#onWarning = onWarning;
    this.#comparison = new TokenComparison({ keyring, onWarning, isLive: (id) => this.#live.has(id) });
  }

  /** What stands in a token or in the vault alone; one line each. */
  get reports(): string[] {
    return this.#comparison.reports;
  }

  /** Makes something in a provider; for a token the vault knows of it before. The commit of the key's version closes the intent. */
  async making<T>(provider: Provider, { keyId, keyVersionId, keySpec }: Omit<NewMaterial, 'keyUsage'>, work: () => Promise<T>): Promise<T> {
    if (!isToken(provider)) return await work();
    await this.#finishDestroying(provider, keyVersionId);
    const release = this.hold(keyVersionId);
    try {
      this.#keyring.commit({ intents: [{ id: keyVersionId, provider: provider.name, act: 'make', keyId, keySpec }] });
      const made = await work();
      setImmediate(release); // whoever waits for the work commits in this turn
      return made;
    } catch (error) {
      release();
      void this.reconcile(provider);
      throw error;
    }
  }

  /** What is made under an id is not left over as long as a request holds it. @returns what lets it go. */
  hold(id: string): () => void {
    this.#live.set(id, (this.#live.get(id) ?? 0) + 1);
    return () => {
      const left = (this.#live.get(id) ?? 1) - 1;
      if (left > 0) this.#live.set(id, left);
      else this.#live.delete(id);
    };
  }

  /** Commits what was made. What the vault refuses is taken back; what it could not write is left, and reported: it may be written all the same. */
  async keeping<T>(provider: Provider, made: MaterialRef & { readonly keyId: string }, commit: () => T): Promise<T> {
    try {
      return commit();
    } catch (error) {
      if (isAgentError(error) && !isAgentError(error, 'ERR_STORE_UNAVAILABLE')) await this.discard(provider, made);
      else if (isToken(provider)) void this.reconcile(provider);
      throw error;
    }
  }

  /** Takes back what was made and nobody keeps. What a token cannot do now it does when it is back. */
  async discard(provider: Provider, made: MaterialRef & { readonly keyId: string }): Promise<void> {
    if (made.material.length === 0) return;
    if (!isToken(provider)) return await provider.destroy(made);
    this.#keyring.commit({ intents: [destroyIntent(provider.name, made.keyId, made)] });
    await this.#finish(provider, made.keyVersionId);
  }

  /** What was made is noted elsewhere in the vault. */
  fulfil(id: string): void {
    this.#keyring.commit({ doneIntents: [id] });
  }

  /** The part of a commit that says that versions are about to be destroyed where they live. */
  destroyIntents({ keyId, provider, protectionLevel, versions }: Key): Pick<KeyringChanges, 'intents'> {
    if (protectionLevel === 'SOFTWARE') return {};
    return { intents: versions.filter(({ material }) => material.length > 0).map((version) => destroyIntent(provider, keyId, version)) };
  }

  /** Destroys versions where they live, once the vault has let go of them. What a token cannot do now it does when it is back. */
  async destroy(key: Key): Promise<void> {
    if (key.protectionLevel === 'HSM') {
      const token = this.#token(key.provider);
      if (token) for (const { keyVersionId } of key.versions) await this.#finish(token, keyVersionId);
      return; // without its token in the settings it waits for that
    }
    for (const version of key.versions) {
      this.#keyring.lifetimes.forgetVersion(key.keyId, version.keyVersionId);
      await this.#keyring.providerOf(key).destroy(version);
    }
  }

  /** A keyslot that was removed takes its key out of the token with it. */
  async destroyKeyslotKey(keyslotId: string, { token, material }: { token: string; material: string }): Promise<void> {
    this.#keyring.commit({ intents: [{ id: keyslotId, provider: token, act: 'destroy', keyId: keyslotId, keySpec: 'AES_256', material }] });
    const provider = this.#token(token);
    if (provider) await this.#finish(provider, keyslotId);
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

  /** Finishes what was begun, compares vault and token, and reports what only one of them has. */
  reconcile(provider: Token): Promise<void> {
    if (this.#asked.has(provider)) return this.#comparing; // one that begins later is on its way
    this.#asked.add(provider);
    this.#comparing = this.#comparing.then(async () => {
      this.#asked.delete(provider);
      for (const { id } of this.#of(provider, 'destroy')) await this.#finish(provider, id);
      await this.#comparison.compare(provider);
    });
    return this.#comparing;
  }

  #token(name: string): Token | undefined {
    return this.#keyring.providers.filter(isToken).find((provider) => provider.name === name);
  }

  #of(provider: Provider, act: Intent['act']): Intent[] {
    return this.#keyring.tokens.intents.filter((intent) => intent.provider === provider.name && intent.act === act);
  }

  async #finish(provider: Token, id: string): Promise<void> {
    try {
      await this.#finishDestroying(provider, id);
    } catch (error) {
      this.#noteLeft(provider, id, error);
    }
  }

  /** What was to be destroyed and has material again is wanted. */
  async #finishDestroying(provider: Token, id: string): Promise<void> {
    const intent = this.#of(provider, 'destroy').find((candidate) => candidate.id === id);
    if (!intent) return;
    if (!this.#comparison.isFilled(id)) await provider.destroy(toRef(intent));
    this.#keyring.commit({ doneIntents: [id] });
    this.#behind.delete(provider);
  }

  /** A destruction that must wait is still wanted; an object that is not ours is nobody's to destroy. Of a token that is away it is said once. */
  #noteLeft(provider: Token, id: string, error: unknown): void {
    if (!isAgentError(error)) throw error;
    const isAway = isAgentError(error, 'ERR_HSM_UNAVAILABLE', 'ERR_HSM_PIN_WRONG', 'ERR_HSM_PIN_LOCKED');
    if (isAgentError(error, 'ERR_AGENT_LOCKED') || (isAway && this.#behind.has(provider))) return;
    if (isAway) this.#behind.add(provider);
    this.#onWarning(
      isAway
        ? `objects such as ${id} could not be destroyed in the token ${provider.name}; they are when it is there anew`
        : `the object ${id} could not be destroyed in the token ${provider.name}; it is tried again when the token is there anew`,
      error,
    );
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
}

/** The error of a key that has no token to live in. */
export const noToken = (): AgentError => new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'This agent has no token; tokens are set in the settings file.' });
