import { describeAlias } from '../keyring/metadata.ts';
import { takePage } from '../keyring/page.ts';
import { SortedIds } from '../keyring/sorted-ids.ts';
import type { Handlers, OperationsContext } from './index.ts';

/** Names for keys. */
export function aliasOperations({ agent, maxAnswerBytes }: OperationsContext): Pick<Handlers, 'createAlias' | 'updateAlias' | 'deleteAlias' | 'listAliases'> {
  return {
    createAlias: (_caller, { aliasName, keyId }) => describeAlias(agent.open.aliases.create(aliasName, keyId)),
    updateAlias: (_caller, { aliasName, keyId }) => describeAlias(agent.open.aliases.update(aliasName, keyId)),
    deleteAlias: (_caller, { aliasName }) => {
      agent.open.aliases.delete(aliasName);
      return {};
    },
    listAliases: (_caller, params) => {
      const { keyring } = agent.open;
      const keyId = params.keyId === undefined ? undefined : keyring.resolve(params.keyId).keyId;
      const names = keyId === undefined ? keyring.aliases.names : SortedIds.of(keyring.aliases.namesOf(keyId));
      const { items, nextToken } = takePage(names, params, ['aliases', keyId], maxAnswerBytes, (name) => describeAlias(keyring.aliases.get(name)));
      return { aliases: items, ...(nextToken ? { nextToken } : {}) };
    },
  };
}
