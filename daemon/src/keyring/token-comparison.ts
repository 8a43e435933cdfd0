import { isAgentError } from '@kms-agent/protocol';
import type { ListedKey } from '../providers/provider.ts';
import type { Intent } from './intent.ts';
import { findVersion } from './key.ts';
import type { Keyring } from './keyring.ts';
import type { Token } from './token-work.ts';

/** What a comparison needs of the work on tokens. */
export interface ComparisonOptions {
  readonly keyring: Keyring;
  readonly onWarning: (warning: string, error?: unknown) => void;
  /** Whether a request that runs now makes something under an id. */
  readonly isLive: (id: string) => boolean;
}

/** Ids that a warning names; the log of a token full of strange objects must not be one line of a megabyte. */
const namedIds = 10;

function nameSome(ids: readonly string[]): string {
  return ids.slice(0, namedIds).join(', ') + (ids.length > namedIds ? ` and ${ids.length - namedIds} more` : '');
}

/** Compares a token with the vault, and reports what only one of them has. Neither loses anything by it. */
export class TokenComparison {
  readonly #options: ComparisonOptions;
  readonly #reports = new Map<string, readonly string[]>();

  constructor(options: ComparisonOptions) {
    this.#options = options;
  }

  /** What the last comparisons found; one line each. */
  get reports(): string[] {
    return [...this.#reports.values()].flat();
  }

  /** Closes intents of what was never made. What cannot be compared now is at the next time that the token is there. */
  async compare(provider: Token): Promise<void> {
    try {
      const before = { filled: this.#versionsIn(provider.name), over: this.#overIn(provider.name) }; // keys come and go while the token lists
      const shown = await provider.list();
      this.#report(provider, {
        interrupted: this.#closeMade(provider, before.over, shown),
        idle: this.#findIdle(provider, before.filled, shown),
        strange: await this.#confirmStrange(provider, before.filled, this.#findStrange(provider, before.filled, shown)),
        missing: this.#findMissing(provider, before.filled, shown),
      });
    } catch (error) {
      if (!isAgentError(error, 'ERR_HSM_UNAVAILABLE', 'ERR_HSM_PIN_WRONG', 'ERR_HSM_PIN_LOCKED', 'ERR_AGENT_LOCKED', 'ERR_BUSY'))
        this.#options.onWarning(`the token ${provider.name} could not be compared with the vault`, error);
    }
  }

  /** Whether what was to be made is there: a version with material, or a keyslot. */
  isFilled(id: string): boolean {
    const { keyring } = this.#options;
    const key = keyring.keyByVersion(id);
    return key ? findVersion(key, id).material.length > 0 : keyring.vault.hasKeyslot(id);
  }

  #versionsIn(provider: string): Set<string> {
    const { keyring } = this.#options;
    const filled = [...keyring.tokens.keyIds].flatMap((keyId) => {
      const key = keyring.findKey(keyId);
      if (key?.provider !== provider) return [];
      return key.versions.filter(({ material }) => material.length > 0).map(({ keyVersionId }) => keyVersionId);
    });
    return new Set(filled);
  }

  /** Of intents whose request is over. */
  #overIn(provider: string): Set<string> {
    const { keyring, isLive } = this.#options;
    const over = keyring.tokens.intents.filter((intent) => intent.provider === provider && intent.act === 'make' && !isLive(intent.id));
    return new Set(over.filter(({ id }) => !this.isFilled(id)).map(({ id }) => id));
  }

  /**
   * Without an object there is nothing to do; with one it stands in the token alone. An object under the id of a version that waits for an import
   * may have been there before it: that is reported as it is, whatever was begun.
   */
  #closeMade({ name }: Token, before: ReadonlySet<string>, shown: readonly ListedKey[]): string[] {
    const ids = new Set(shown.map(({ keyVersionId }) => keyVersionId));
    const over = [...this.#overIn(name)].filter((id) => before.has(id));
    const isLeft = (id: string): boolean => ids.has(id) && !this.#options.keyring.keyByVersion(id);
    const nothing = over.filter((id) => !isLeft(id));
    if (nothing.length > 0) this.#options.keyring.commit({ doneIntents: nothing });
    return over.filter(isLeft);
  }

  /** Whether a request, or what is noted to be done, accounts for an object. */
  #isAccounted({ name }: Token, id: string, ...acts: readonly Intent['act'][]): boolean {
    const { keyring, isLive } = this.#options;
    return isLive(id) || keyring.tokens.intents.some((intent) => intent.provider === name && intent.id === id && acts.includes(intent.act));
  }

  /** Objects under the id of a key version that has no material: from before the vault was put back, of an import that was cut off, or another's. */
  #findIdle(provider: Token, before: ReadonlySet<string>, shown: readonly ListedKey[]): string[] {
    const isIdle = (id: string): boolean => this.#options.keyring.keyByVersion(id) !== undefined && !this.isFilled(id) && !before.has(id);
    return shown.map(({ keyVersionId }) => keyVersionId).filter((id) => isIdle(id) && !this.#isAccounted(provider, id, 'destroy'));
  }

  #findStrange(provider: Token, before: ReadonlySet<string>, shown: readonly ListedKey[]): string[] {
    const { keyring } = this.#options;
    const isKnown = (id: string): boolean => keyring.keyByVersion(id) !== undefined || keyring.vault.hasKeyslot(id) || before.has(id);
    const ours = shown.filter(({ label }) => label.startsWith('kms-agent ')).map(({ keyVersionId }) => keyVersionId);
    return ours.filter((id) => !isKnown(id) && !this.#isAccounted(provider, id, 'make', 'destroy', 'wrap'));
  }

  /** What came and went while the token listed, such as the wrapping pair of an import, is gone at a second look. */
  async #confirmStrange(provider: Token, before: ReadonlySet<string>, strange: readonly string[]): Promise<string[]> {
    if (strange.length === 0) return [];
    const again = this.#findStrange(provider, before, await provider.list());
    return strange.filter((id) => again.includes(id));
  }

  #findMissing(provider: Token, before: ReadonlySet<string>, shown: readonly ListedKey[]): string[] {
    const ids = new Set(shown.map(({ keyVersionId }) => keyVersionId));
    const missing = [...this.#versionsIn(provider.name)].filter((id) => before.has(id) && !ids.has(id));
    for (const id of ids) provider.markShown(id);
    for (const id of missing) provider.markMissing(id);
    return missing;
  }

  #report({ name }: Token, { interrupted, idle, strange, missing }: Readonly<Record<'interrupted' | 'idle' | 'strange' | 'missing', readonly string[]>>): void {
    const lines = [
      describe(
        interrupted,
        (n) => `The token ${name} holds ${n} objects of creations that were cut off; no key uses them, and they can be deleted with the vendor's tool`,
      ),
      describe(idle, (n) => `The token ${name} holds ${n} objects of key versions that have no material in the vault; they are left as they are`),
      describe(strange, (n) => `The token ${name} holds ${n} objects of an agent that this vault does not know`),
      describe(missing, (n) => `The token ${name} does not show ${n} key versions of the vault; their keys are Unavailable`),
    ].flat();
    const before = this.#reports.get(name) ?? [];
    for (const line of lines) if (!before.includes(line)) this.#options.onWarning(line);
    this.#reports.set(name, lines);
  }
}

const describe = (ids: readonly string[], words: (count: number) => string): string[] => (ids.length === 0 ? [] : [`${words(ids.length)}: ${nameSome(ids)}.`]);
