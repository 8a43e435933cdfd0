import { decodeBlob, type MethodName, type MethodParams } from '@kms-agent/protocol';
import { type Caller, serviceOf } from '../caller/identity.ts';
import { defaultAlias } from '../keyring/alias-book.ts';
import type { Key } from '../keyring/key.ts';
import type { Keyring } from '../keyring/keyring.ts';
import type { KeyAction } from './actions.ts';

/** A right that a request needs. */
export interface Demand {
  readonly action: KeyAction;
  /** Another name of the operation, which a Deny may speak of. */
  readonly alias?: KeyAction;
  /** Undefined for one that is not there; `own` for the key of the caller's service, which comes with its first use. */
  readonly key: Key | undefined | 'own';
}

function find(keyring: Keyring, reference: string): Key | undefined {
  const keyId = reference.startsWith('alias/') ? keyring.aliases.find(reference)?.keyId : reference;
  return keyId === undefined ? undefined : keyring.findKey(keyId);
}

/** The key of who names none. What cannot be read has no key: never another's. */
function findDefault(keyring: Keyring, caller: Caller): Demand['key'] {
  const service = serviceOf(caller);
  if (service === 'unknown') return undefined;
  if (service === undefined) return find(keyring, defaultAlias);
  const alias = keyring.aliases.findService(service.name);
  return alias ? keyring.findKey(alias.keyId) : 'own';
}

/** What reEncrypt asks for: to open at one end, to make at the other. */
function demandsOfReEncrypt(keyring: Keyring, params: MethodParams<'reEncrypt'>): Demand[] {
  const isRaw = params.iv !== undefined || (params.algorithm ?? 'AES_GCM') !== 'AES_GCM';
  const sources = sourcesOf(keyring, params);
  const opening = (sources.length === 0 ? [undefined] : sources).map(
    (key) => ({ action: isRaw ? 'decrypt' : 'advanceDecrypt', alias: 'reEncrypt', key }) as const,
  );
  return [...opening, { action: 'advanceEncrypt', alias: 'reEncrypt', key: find(keyring, params.destinationKeyId) }];
}

interface NamesBlob {
  readonly keyId?: string | undefined;
  readonly ciphertextBlob: Uint8Array;
  readonly iv?: Uint8Array | undefined;
}

/** The keys that a ciphertext is said to be of: the one that is named, and the one that its blob names. */
function sourcesOf(keyring: Keyring, { keyId, ciphertextBlob, iv }: NamesBlob): (Key | undefined)[] {
  const named = keyId === undefined ? [] : [find(keyring, keyId)];
  const blob = iv ? undefined : decodeBlob(ciphertextBlob);
  const ofBlob = blob && keyring.keyByVersion(blob.keyVersionId);
  return !blob || (ofBlob !== undefined && named.includes(ofBlob)) ? named : [...named, ofBlob]; // one right, asked for and counted once
}

const namesBlob = (params: object): params is NamesBlob => 'ciphertextBlob' in params;

/** Every key that the parameters name; an alias that is moved or deleted counts as the key that it stands for. */
function keysOf(keyring: Keyring, method: MethodName, params: MethodParams<MethodName>): (Key | undefined)[] {
  if (namesBlob(params)) return sourcesOf(keyring, params);
  const named = 'keyId' in params && params.keyId !== undefined ? [find(keyring, params.keyId)] : [];
  const alias = (method === 'updateAlias' || method === 'deleteAlias') && 'aliasName' in params ? params.aliasName : undefined;
  return alias === undefined ? named : [...named, find(keyring, alias)];
}

/** The rights that a request needs, found without an error: what is missing is told only to those who may know. */
export function findDemands<M extends MethodName>(keyring: Keyring, caller: Caller, method: M, params: MethodParams<M>): Demand[] {
  if (method === 'reEncrypt') return demandsOfReEncrypt(keyring, params as MethodParams<'reEncrypt'>);
  const action = method as KeyAction; // the dispatcher asks for methods with a key only
  const keys = keysOf(keyring, method, params);
  if (keys.length > 0) return keys.map((key) => ({ action, key }));
  const usesDefault = !namesBlob(params);
  return [{ action, key: usesDefault ? findDefault(keyring, caller) : undefined }];
}
