import { z } from 'zod';
import { AgentError } from './errors.ts';
import * as agent from './messages/agent.ts';
import * as audit from './messages/audit.ts';
import * as crypto from './messages/crypto.ts';
import * as keys from './messages/keys.ts';
import * as life from './messages/life.ts';
import * as policy from './messages/policy.ts';
import type { MethodName, MethodParams, MethodResult } from './methods.ts';

/** Everything both sides must know of a method to carry it. */
export interface MethodSpec<M extends MethodName> {
  readonly params: z.ZodType<MethodParams<M>>;
  readonly result: z.ZodType<MethodResult<M>>;
  /** One sentence, for the OpenRPC document and the command line. */
  readonly summary: string;
  /** Whether the method needs the vault to be unlocked. */
  readonly needsKeys: boolean;
  /** Whether it changes what the vault holds. */
  readonly changes: boolean;
  /** Whether a client may send it again when the connection broke before the answer came. */
  readonly repeatable: boolean;
}

function spec<M extends MethodName>(params: z.ZodType<MethodParams<M>>, result: z.ZodType<MethodResult<M>>, summary: string): MethodSpec<M> {
  return { params, result, summary, needsKeys: true, changes: false, repeatable: true };
}

/** Changes the vault; repeated only where doing it twice is doing it once. */
const changing = <M extends MethodName>(of: MethodSpec<M>, repeatable: boolean): MethodSpec<M> => ({ ...of, changes: true, repeatable });

/** Works while the agent is locked. */
const keyless = <M extends MethodName>(of: MethodSpec<M>, repeatable = true): MethodSpec<M> => ({ ...of, needsKeys: false, repeatable });

/** One row a method; the summaries of the raw operations begin by saying what they are. */
export const specs: { readonly [M in MethodName]: MethodSpec<M> } = {
  encrypt: spec(crypto.encryptParams, crypto.encryptResult, 'Raw: encrypts with the initial version; new code uses advanceEncrypt.'),
  decrypt: spec(crypto.decryptParams, crypto.decryptResult, 'Raw: decrypts what encrypt or generateDataKey made, or any standard library.'),
  advanceEncrypt: spec(crypto.advanceEncryptParams, crypto.advanceEncryptResult, 'Encrypts with the primary version into a blob that names it.'),
  advanceDecrypt: spec(crypto.advanceDecryptParams, crypto.advanceDecryptResult, 'Decrypts an advance blob, or a raw one with its key and IV.'),
  generateDataKey: spec(crypto.generateDataKeyParams, crypto.generateDataKeyResult, 'Raw: makes a data key under the initial version.'),
  advanceGenerateDataKey: spec(
    crypto.generateDataKeyParams,
    crypto.advanceGenerateDataKeyResult,
    'Makes a data key: plaintext, and an advance blob under the primary version.',
  ),
  generateDataKeyWithoutPlaintext: spec(crypto.generateDataKeyParams, crypto.advanceEncryptResult, 'Makes a data key and answers only its advance blob.'),
  reEncrypt: spec(crypto.reEncryptParams, crypto.reEncryptResult, 'Moves a ciphertext to another key or to the newest version, inside the agent.'),
  sign: spec(crypto.signParams, crypto.signResult, 'Signs a message or its SHA-256 with the primary version.'),
  verify: spec(crypto.verifyParams, crypto.verifyResult, 'Says whether a signature is valid.'),
  getPublicKey: spec(crypto.getPublicKeyParams, crypto.getPublicKeyResult, 'Answers the public key as PEM.'),
  generateRandom: keyless(spec(crypto.generateRandomParams, crypto.generateRandomResult, 'Answers random bytes.')),

  createKey: changing(spec(keys.createKeyParams, keys.keyMetadata, 'Makes a key.'), true),
  describeKey: spec(keys.keyIdParams, keys.keyMetadata, 'Answers what is known about a key.'),
  listKeys: spec(keys.listKeysParams, keys.listKeysResult, 'Lists keys, sorted by id.'),
  updateKeyDescription: changing(spec(keys.updateKeyDescriptionParams, keys.keyMetadata, "Changes a key's description."), false),
  enableKey: changing(spec(life.onlyKeyIdParams, keys.keyMetadata, 'Lets a disabled key be used again.'), true),
  disableKey: changing(spec(life.onlyKeyIdParams, keys.keyMetadata, 'Stops every use of a key until it is enabled.'), true),
  scheduleKeyDeletion: changing(spec(life.scheduleKeyDeletionParams, keys.keyMetadata, 'Destroys a key for good when its window ends.'), false),
  cancelKeyDeletion: changing(spec(life.onlyKeyIdParams, keys.keyMetadata, 'Takes a scheduled deletion back.'), false),
  setDeletionProtection: changing(spec(life.setDeletionProtectionParams, keys.keyMetadata, 'Protects a key against deletion, or lifts that.'), false),
  tagKey: changing(spec(life.tagKeyParams, keys.keyMetadata, 'Adds tags to a key.'), true),
  untagKey: changing(spec(life.untagKeyParams, keys.keyMetadata, 'Removes tags from a key.'), true),
  createAlias: changing(spec(keys.aliasParams, keys.alias, 'Makes an alias of a key.'), false),
  updateAlias: changing(spec(keys.aliasParams, keys.alias, 'Moves an alias to another key.'), true),
  deleteAlias: changing(spec(keys.deleteAliasParams, agent.emptyResult, 'Deletes an alias; the key stays.'), false),
  listAliases: spec(keys.listAliasesParams, keys.listAliasesResult, 'Lists aliases, sorted by name.'),
  createKeyVersion: changing(spec(keys.createKeyVersionParams, keys.keyVersion, 'Makes a new version of a key: rotates it by hand.'), true),
  setPrimaryKeyVersion: changing(spec(keys.keyVersionParams, keys.keyMetadata, 'Chooses the version that advance operations and sign use.'), false),
  listKeyVersions: spec(keys.listKeyVersionsParams, keys.listKeyVersionsResult, 'Lists the versions of a key, oldest first.'),
  describeKeyVersion: spec(keys.keyVersionParams, keys.keyVersion, 'Answers what is known about a version.'),
  updateRotationPolicy: changing(spec(life.updateRotationPolicyParams, keys.keyMetadata, 'Turns automatic rotation on or off.'), false),
  getParametersForImport: spec(
    life.getParametersForImportParams,
    life.getParametersForImportResult,
    'Answers a public key to wrap key material with, and the token that imports it.',
  ),
  importKeyMaterial: changing(
    spec(life.importKeyMaterialParams, life.importKeyMaterialResult, 'Puts wrapped key material into a key of origin EXTERNAL.'),
    false,
  ),
  deleteKeyMaterial: changing(spec(life.onlyKeyIdParams, keys.keyMetadata, 'Deletes imported material at once; the same can be imported again.'), false),
  getKeyPolicy: spec(keys.keyIdParams, policy.keyPolicyResult, 'Answers who may do what with a key.'),
  setKeyPolicy: changing(spec(policy.setKeyPolicyParams, policy.keyPolicyResult, 'Says who may do what with a key.'), false),

  status: keyless(spec(agent.noParams, agent.agentStatus, 'Says how the agent is.')),
  whoAmI: keyless(spec(agent.noParams, agent.whoAmIResult, 'Says who the agent takes the caller for.')),
  explain: keyless(spec(policy.explainParams, policy.explainResult, 'Says whether a call would be allowed, and why; changes nothing.')),
  unlock: keyless(spec(agent.unlockParams, agent.agentStatus, 'Opens the vault.'), false),
  lock: keyless(spec(agent.noParams, agent.agentStatus, 'Forgets every key until the next unlock.')),
  confirmClock: changing(spec(agent.noParams, agent.agentStatus, 'Says that the wall clock is right, so that destruction and expiry go on.'), false),
  metrics: keyless(spec(agent.noParams, agent.metricsResult, 'Answers figures in the Prometheus text format.')),
  tailAudit: keyless(spec(audit.tailAuditParams, audit.tailAuditResult, 'Answers records of what was asked and done.')),
  listKeyslots: keyless(spec(agent.noParams, agent.listKeyslotsResult, 'Lists the ways into the vault.')),
  addKeyslot: changing(spec(agent.addKeyslotParams, agent.addKeyslotResult, 'Adds a way into the vault.'), false),
  removeKeyslot: changing(spec(agent.removeKeyslotParams, agent.emptyResult, 'Removes a way into the vault.'), false),
  'rpc.discover': keyless(spec(agent.noParams, agent.openRpcDocument, 'Answers the OpenRPC document of all methods.')),
};

/** All method names, in the order of the table. */
export const methodNames = Object.keys(specs) as readonly MethodName[]; // the keys of a mapped type over MethodName

/** Whether there is such a method; inherited names such as `constructor` are none. */
export function isMethodName(name: string): name is MethodName {
  return Object.hasOwn(specs, name);
}

function escapePointer(part: PropertyKey): string {
  return String(part).replaceAll('~', '~0').replaceAll('/', '~1');
}

/** The first issue as a JSON Pointer (RFC 6901) and what is wrong there; never the value. */
function describeIssue(error: z.ZodError): { path: string; reason: string } {
  const issue = error.issues[0];
  if (!issue) return { path: '', reason: 'is not valid' };
  const parts = issue.code === 'unrecognized_keys' ? [...issue.path, ...issue.keys.slice(0, 1)] : issue.path;
  const reason = issue.code === 'unrecognized_keys' ? 'is not a parameter of this method' : issue.message;
  return { path: parts.map((part) => `/${escapePointer(part)}`).join(''), reason };
}

/**
 * Reads parameters from their wire form.
 * @throws AgentError `ERR_INVALID_PARAMS` with `path`, the JSON Pointer of the first bad field, and `reason`.
 */
export function decodeParams<M extends MethodName>(method: M, wire: unknown): MethodParams<M> {
  const decoded = specs[method].params.safeDecode((wire === undefined ? {} : wire) as never); // unknown until here; decode checks all of it
  if (!decoded.success) throw new AgentError('ERR_INVALID_PARAMS', describeIssue(decoded.error));
  return decoded.data as MethodParams<M>; // the union over methods collapses to this one
}

/**
 * Reads a policy, for example one that stands in settings.
 * @throws AgentError `ERR_INVALID_PARAMS` with `path`, the JSON Pointer of the first bad field, and `reason`.
 */
export function decodePolicy(wire: unknown): policy.KeyPolicy {
  const decoded = policy.keyPolicy.safeDecode(wire as never); // unknown until here; decode checks all of it
  if (!decoded.success) throw new AgentError('ERR_INVALID_PARAMS', describeIssue(decoded.error));
  return decoded.data;
}

/**
 * Writes parameters in their wire form.
 * @throws AgentError `ERR_INVALID_PARAMS` as the agent would answer it.
 */
export function encodeParams<M extends MethodName>(method: M, params: MethodParams<M>): unknown {
  const encoded = specs[method].params.safeEncode(params as never);
  if (!encoded.success) throw new AgentError('ERR_INVALID_PARAMS', describeIssue(encoded.error));
  return encoded.data;
}

/** Writes a result in its wire form. */
export function encodeResult<M extends MethodName>(method: M, result: MethodResult<M>): unknown {
  return z.encode(specs[method].result as z.ZodType<MethodResult<M>>, result); // the union over methods collapses to this one
}

/**
 * Reads a result from its wire form; fields and names of later versions pass.
 * @throws AgentError `ERR_INTERNAL` when the answer is not of the form that the protocol promises.
 */
export function decodeResult<M extends MethodName>(method: M, wire: unknown): MethodResult<M> {
  const decoded = specs[method].result.safeDecode(wire as never); // unknown until here; decode checks all of it
  if (!decoded.success) throw new AgentError('ERR_INTERNAL', describeIssue(decoded.error));
  return decoded.data as MethodResult<M>; // the union over methods collapses to this one
}
