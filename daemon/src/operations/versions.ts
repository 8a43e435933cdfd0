import type { KeyVersion } from '@kms-agent/protocol';
import { describeKey, describeVersion } from '../keyring/metadata.ts';
import { takePage } from '../keyring/page.ts';
import { SortedIds } from '../keyring/sorted-ids.ts';
import type { Handlers, OperationsContext } from './index.ts';

type VersionMethods = 'createKeyVersion' | 'setPrimaryKeyVersion' | 'listKeyVersions' | 'describeKeyVersion';

/** Versions of a key: rotation by hand. */
export function versionOperations({ agent, maxAnswerBytes }: OperationsContext): Pick<Handlers, VersionMethods> {
  return {
    createKeyVersion: async (caller, params) => {
      const { keyring, creation } = agent.open;
      const made = await creation.createVersion(caller, keyring.resolve(params.keyId), params);
      return describeVersion(keyring.keyById(made.keyId), made.keyVersionId);
    },
    setPrimaryKeyVersion: (_caller, { keyId, keyVersionId }) => {
      const { keyring, life } = agent.open;
      return describeKey(keyring, life.setPrimaryVersion(keyring.resolve(keyId), keyVersionId));
    },
    listKeyVersions: async (_caller, params) => {
      const { keyring, pageTokens: tokens } = agent.open;
      const key = keyring.resolve(params.keyId);
      const ids = SortedIds.of(key.versions.map((version) => version.keyVersionId));
      const read = (id: string): KeyVersion => describeVersion(key, id);
      const { items, nextToken } = await takePage({ ids, request: params, list: ['versions', key.keyId], tokens, maxBytes: maxAnswerBytes, read });
      return { keyVersions: items, ...(nextToken ? { nextToken } : {}) };
    },
    describeKeyVersion: (_caller, { keyId, keyVersionId }) => describeVersion(agent.open.keyring.resolve(keyId), keyVersionId),
  };
}
