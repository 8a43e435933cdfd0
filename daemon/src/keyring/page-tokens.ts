import { AgentError } from '@kms-agent/protocol';
import { seal, unseal } from '../vault/seal.ts';
import type { Vault } from '../vault/vault.ts';

/** The same text for the same filters, in whatever order a language writes their names. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_name, inner: unknown) => {
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

const aadOf = (list: unknown): Buffer => Buffer.from(`kms-agent page 1 ${canonical(list)}`);

/** Where the next page begins, sealed: the id there may be one that the caller is not to know of. */
export class PageTokens {
  readonly #vault: Vault;

  constructor(vault: Vault) {
    this.#vault = vault;
  }

  /** @param list - what the token is good for. @throws AgentError `ERR_AGENT_LOCKED`. */
  write(after: string, list: unknown): string {
    return this.#withKey((key) => Buffer.from(seal(key, aadOf(list), Buffer.from(after))).toString('base64url'));
  }

  /** The id after which the page begins; empty for the first. @throws AgentError `ERR_INVALID_PARAMS` for a token of another list or filter. */
  read(token: string | undefined, list: unknown): string {
    if (token === undefined) return '';
    const after = this.#withKey((key) => unseal(key, aadOf(list), Buffer.from(token, 'base64url')));
    if (!after) throw new AgentError('ERR_INVALID_PARAMS', { path: '/nextToken', reason: 'is not a token of this list and these filters' });
    return after.toString();
  }

  #withKey<T>(work: (key: Buffer) => T): T {
    const key = this.#vault.deriveKey('page token');
    try {
      return work(key);
    } finally {
      key.fill(0);
    }
  }
}
