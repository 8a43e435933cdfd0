import { decodeBlob, type MethodName, type MethodParams } from '@kms-agent/protocol';
import type { Agent } from '../keyring/agent.ts';
import type { Key } from '../keyring/key.ts';
import type { Keyring } from '../keyring/keyring.ts';

/** The keys that a request touches, as far as its parameters name them; undefined for one that is not there. Empty: the default key, or none. */
export type Targets = readonly (Key | undefined)[];

function find(keyring: Keyring, reference: string): Key | undefined {
  const keyId = reference.startsWith('alias/') ? keyring.aliases.find(reference)?.keyId : reference;
  return keyId === undefined ? undefined : keyring.findKey(keyId);
}

/** Finds them without an error: what is missing is told only to those who may know. */
export function findTargets<M extends MethodName>(agent: Agent, params: MethodParams<M>): Targets {
  const { keyring } = agent.open;
  const named = [
    'keyId' in params && params.keyId !== undefined ? [find(keyring, params.keyId)] : [],
    'destinationKeyId' in params ? [find(keyring, params.destinationKeyId)] : [],
  ].flat();
  if (!('ciphertextBlob' in params) || ('iv' in params && params.iv)) return named;
  const blob = decodeBlob(params.ciphertextBlob);
  return blob ? [...named, keyring.keyByVersion(blob.keyVersionId)] : named;
}
