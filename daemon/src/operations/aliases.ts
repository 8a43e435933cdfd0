import { AgentError, type Alias, isAgentError } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import type { Key } from '../keyring/key.ts';
import { describeAlias } from '../keyring/metadata.ts';
import { takePage } from '../keyring/page.ts';
import { SortedIds } from '../keyring/sorted-ids.ts';
import type { Handlers, OperationsContext } from './index.ts';

/** Names for keys. */
export function aliasOperations({
  agent,
  authority,
  maxAnswerBytes,
}: OperationsContext): Pick<Handlers, 'createAlias' | 'updateAlias' | 'deleteAlias' | 'listAliases'> {
  /** A key that the caller may know of. What is missing looks like what is forbidden, but for administrators. */
  const requireVisible = (caller: Caller, reference: string): Key => {
    const { keyring } = agent.open;
    try {
      const key = keyring.resolve(reference);
      if (authority.mayDescribe(caller, key)) return key;
    } catch (error) {
      if (!isAgentError(error) || authority.isAdministrator(caller)) throw error;
    }
    throw new AgentError('ERR_ACCESS_DENIED');
  };

  return {
    createAlias: (_caller, { aliasName, keyId }) => describeAlias(agent.open.aliases.create(aliasName, keyId)),
    updateAlias: (_caller, { aliasName, keyId }) => describeAlias(agent.open.aliases.update(aliasName, keyId)),
    deleteAlias: (_caller, { aliasName }) => {
      agent.open.aliases.delete(aliasName);
      return {};
    },
    listAliases: async (caller, params) => {
      const { keyring, pageTokens: tokens } = agent.open;
      const keyId = params.keyId === undefined ? undefined : requireVisible(caller, params.keyId).keyId;
      const names = keyId === undefined ? keyring.aliases.names : SortedIds.of(keyring.aliases.namesOf(keyId));
      const read = (name: string): Alias | undefined => {
        const alias = keyring.aliases.get(name);
        const key = keyring.peekKey(alias.keyId);
        return key && authority.mayDescribe(caller, key) ? describeAlias(alias) : undefined;
      };
      const list = ['aliases', keyId ?? null];
      const { items, nextToken } = await takePage({ ids: names, request: params, list, tokens, maxBytes: maxAnswerBytes, read });
      return { aliases: items, ...(nextToken ? { nextToken } : {}) };
    },
  };
}
