import type { TokenAbilities, TokenInfo } from './messages.ts';
import { matchOf, type TokenSettings } from './settings.ts';
import { formatTokenUri } from './uri.ts';

/** Says in the log, once, what people should know of a token: a URI by label alone, and what it lists and does not do, or does after all. */
export class Announcement {
  readonly #settings: TokenSettings;
  readonly #onNote: (note: string, level: 'warn' | 'info') => void;
  readonly #refused = new Set<string>();
  #isUriSaid = false;

  constructor(settings: TokenSettings, onNote: (note: string, level: 'warn' | 'info') => void) {
    this.#settings = settings;
    this.#onNote = onNote;
  }

  sayUri(info: TokenInfo): void {
    if (this.#isUriSaid || matchOf(this.#settings).serial !== undefined) return;
    this.#isUriSaid = true;
    const { name } = this.#settings;
    const why = `the URI of the token ${name} names no serial number; the agent holds to the token of its label that it logged in to first`;
    this.#onNote(`${why}; set it to ${formatTokenUri(info)}`, 'warn');
  }

  sayAbilities({ works, refused }: TokenAbilities): void {
    const { name } = this.#settings;
    for (const line of refused) {
      if (!this.#refused.has(line)) this.#onNote(`the token ${name} does not offer ${line}`, 'info');
      this.#refused.add(line);
    }
    for (const line of this.#refused) {
      const does = works.find((work) => line.startsWith(`${work} (`));
      if (does === undefined) continue;
      this.#refused.delete(line);
      this.#onNote(`the token ${name} offers ${does} after all`, 'info');
    }
  }
}
