import type { KeyMetadata } from '@kms-agent/protocol';
import type { Key } from '../keyring/key.ts';
import { describeKey, findCandidates, matchesFilters } from '../keyring/metadata.ts';
import type { OpenKeyring } from '../keyring/open-keyring.ts';
import { takePage } from '../keyring/page.ts';
import type { Handlers, OperationsContext } from './index.ts';

type KeyMethods =
  | 'createKey'
  | 'describeKey'
  | 'listKeys'
  | 'updateKeyDescription'
  | 'enableKey'
  | 'disableKey'
  | 'scheduleKeyDeletion'
  | 'cancelKeyDeletion'
  | 'setDeletionProtection'
  | 'tagKey'
  | 'untagKey'
  | 'updateRotationPolicy';

/** Making, showing and changing keys. */
export function keyOperations({ agent, authority, maxAnswerBytes }: OperationsContext): Pick<Handlers, KeyMethods> {
  /** Changes a key and answers it as it is then. */
  const change = (keyId: string, work: (open: OpenKeyring, key: Key) => Key): ReturnType<typeof describeKey> => {
    const { keyring } = agent.open;
    const changed = work(agent.open, keyring.resolve(keyId));
    agent.open.watch.note(changed);
    return describeKey(keyring, changed);
  };

  return {
    createKey: async (caller, params) => {
      const { keyring, creation, watch } = agent.open;
      const { policy, ...rest } = params;
      const key = await creation.createKey(caller, { ...rest, ...(policy ? { policy: authority.prepare(policy).policy } : {}) });
      watch.note(key);
      return describeKey(keyring, key);
    },
    describeKey: (_caller, { keyId }) => describeKey(agent.open.keyring, agent.open.keyring.resolve(keyId)),
    listKeys: async (caller, params) => {
      const { keyring, pageTokens: tokens } = agent.open;
      const { filters = {} } = params;
      const ids = authority.isAdministrator(caller) ? findCandidates(keyring, filters) : keyring.keyIds; // where a shorter walk ends would tell others of names that they may not see
      const read = (keyId: string): KeyMetadata | undefined => {
        const key = keyring.peekKey(keyId);
        return key && matchesFilters(keyring, key, filters) && authority.mayDescribe(caller, key) ? describeKey(keyring, key) : undefined;
      };
      const list = ['keys', params.filters ?? null];
      const { items, nextToken } = await takePage({ ids, request: params, list, tokens, maxBytes: maxAnswerBytes, read });
      return { keys: items, ...(nextToken ? { nextToken } : {}) };
    },
    updateKeyDescription: (_caller, { keyId, description }) => change(keyId, ({ life }, key) => life.setDescription(key, description)),
    enableKey: (_caller, { keyId }) => change(keyId, ({ life }, key) => life.enable(key)),
    disableKey: (_caller, { keyId }) => change(keyId, ({ life }, key) => life.disable(key)),
    scheduleKeyDeletion: (_caller, { keyId, pendingWindowInDays }) => change(keyId, ({ life }, key) => life.scheduleDeletion(key, pendingWindowInDays)),
    cancelKeyDeletion: (_caller, { keyId }) => change(keyId, ({ life }, key) => life.cancelDeletion(key)),
    setDeletionProtection: (_caller, { keyId, enabled, description }) =>
      change(keyId, ({ life }, key) => life.setDeletionProtection(key, enabled, description)),
    tagKey: (_caller, { keyId, tags }) => change(keyId, ({ life }, key) => life.tag(key, tags)),
    untagKey: (_caller, { keyId, tagKeys }) => change(keyId, ({ life }, key) => life.untag(key, tagKeys)),
    updateRotationPolicy: (_caller, { keyId, ...policy }) => change(keyId, ({ life }, key) => life.setRotation(key, policy)),
  };
}
