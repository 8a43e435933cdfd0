import { describeKey, matchesFilters } from '../keyring/metadata.ts';
import { takePage } from '../keyring/page.ts';
import type { Handlers, OperationsContext } from './index.ts';

/** Making, showing and changing keys. */
export function keyOperations({ agent, maxAnswerBytes }: OperationsContext): Pick<Handlers, 'createKey' | 'describeKey' | 'listKeys' | 'updateKeyDescription'> {
  return {
    createKey: async (caller, params) => {
      const { keyring, lifecycle } = agent.open;
      return describeKey(keyring, await lifecycle.createKey(caller, params));
    },
    describeKey: (_caller, { keyId }) => describeKey(agent.open.keyring, agent.open.keyring.resolve(keyId)),
    listKeys: (_caller, params) => {
      const { keyring } = agent.open;
      const { items, nextToken } = takePage(keyring.keyIds(), params, params.filters, maxAnswerBytes, (keyId) => {
        const key = describeKey(keyring, keyring.keyById(keyId));
        return matchesFilters(key, params.filters ?? {}) ? key : undefined;
      });
      return { keys: items, ...(nextToken ? { nextToken } : {}) };
    },
    updateKeyDescription: (_caller, { keyId, description }) => {
      const { keyring, lifecycle } = agent.open;
      return describeKey(keyring, lifecycle.setDescription(keyring.resolve(keyId), description));
    },
  };
}
