import { describeAlias } from '../keyring/metadata.ts';
import { takePage } from '../keyring/page.ts';
import type { Handlers, OperationsContext } from './index.ts';

/** Names for keys. */
export function aliasOperations({ agent, maxAnswerBytes }: OperationsContext): Pick<Handlers, 'createAlias' | 'updateAlias' | 'deleteAlias' | 'listAliases'> {
  return {
    createAlias: (_caller, { aliasName, keyId }) => describeAlias(agent.open.lifecycle.createAlias(aliasName, keyId)),
    updateAlias: (_caller, { aliasName, keyId }) => describeAlias(agent.open.lifecycle.updateAlias(aliasName, keyId)),
    deleteAlias: (_caller, { aliasName }) => {
      agent.open.lifecycle.deleteAlias(aliasName);
      return {};
    },
    listAliases: (_caller, params) => {
      const { keyring } = agent.open;
      const keyId = params.keyId === undefined ? undefined : keyring.resolve(params.keyId).keyId;
      const names = keyring.aliasNames(keyId);
      const { items, nextToken } = takePage(names, params, keyId, maxAnswerBytes, (name) => describeAlias(keyring.aliasByName(name)));
      return { aliases: items, ...(nextToken ? { nextToken } : {}) };
    },
  };
}
