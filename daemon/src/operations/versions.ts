import type { KeyVersion } from '@kms-agent/protocol';
import type { Key } from '../keyring/key.ts';
import { describeKey, describeVersion } from '../keyring/metadata.ts';
import { type PageIds, takePage } from '../keyring/page.ts';
import type { Handlers, OperationsContext } from './index.ts';

type VersionMethods = 'createKeyVersion' | 'setPrimaryKeyVersion' | 'listKeyVersions' | 'describeKeyVersion';

/** The versions in the order in which they were made: their ids do not say it once a clock was set back. None ever goes, so a page continues at a place. */
function idsOfVersions({ versions }: Key): PageIds {
  return {
    length: versions.length,
    at: (index) => versions[index]?.keyVersionId,
    indexAfter: (id) => versions.findIndex(({ keyVersionId }) => keyVersionId === id) + 1,
  };
}

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
      const ids = idsOfVersions(key);
      const read = (id: string): KeyVersion => describeVersion(key, id);
      const { items, nextToken } = await takePage({ ids, request: params, list: ['versions', key.keyId], tokens, maxBytes: maxAnswerBytes, read });
      return { keyVersions: items, ...(nextToken ? { nextToken } : {}) };
    },
    describeKeyVersion: (_caller, { keyId, keyVersionId }) => describeVersion(agent.open.keyring.resolve(keyId), keyVersionId),
  };
}
