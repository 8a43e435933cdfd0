import type * as agent from './messages/agent.ts';
import type * as audit from './messages/audit.ts';
import type * as crypto from './messages/crypto.ts';
import type * as keys from './messages/keys.ts';
import type * as life from './messages/life.ts';
import type * as policy from './messages/policy.ts';

/** Without parameters: `{}` or nothing at all. */
export type NoParams = Record<string, never>;

/**
 * The table of methods: what each takes and what it answers.
 * A row here without a schema in `specs.ts` or a handler in the agent does not compile.
 */
export interface Methods {
  encrypt: { params: crypto.EncryptParams; result: crypto.EncryptResult };
  decrypt: { params: crypto.DecryptParams; result: crypto.DecryptResult };
  advanceEncrypt: { params: crypto.AdvanceEncryptParams; result: crypto.AdvanceEncryptResult };
  advanceDecrypt: { params: crypto.AdvanceDecryptParams; result: crypto.AdvanceDecryptResult };
  generateDataKey: { params: crypto.GenerateDataKeyParams; result: crypto.GenerateDataKeyResult };
  advanceGenerateDataKey: { params: crypto.GenerateDataKeyParams; result: crypto.AdvanceGenerateDataKeyResult };
  generateDataKeyWithoutPlaintext: { params: crypto.GenerateDataKeyParams; result: crypto.GenerateDataKeyWithoutPlaintextResult };
  reEncrypt: { params: crypto.ReEncryptParams; result: crypto.ReEncryptResult };
  sign: { params: crypto.SignParams; result: crypto.SignResult };
  verify: { params: crypto.VerifyParams; result: crypto.VerifyResult };
  getPublicKey: { params: crypto.GetPublicKeyParams; result: crypto.GetPublicKeyResult };
  generateRandom: { params: crypto.GenerateRandomParams; result: crypto.GenerateRandomResult };

  createKey: { params: keys.CreateKeyParams; result: keys.KeyMetadata };
  describeKey: { params: keys.KeyIdParams; result: keys.KeyMetadata };
  listKeys: { params: keys.ListKeysParams; result: keys.ListKeysResult };
  updateKeyDescription: { params: keys.UpdateKeyDescriptionParams; result: keys.KeyMetadata };
  enableKey: { params: life.OnlyKeyIdParams; result: keys.KeyMetadata };
  disableKey: { params: life.OnlyKeyIdParams; result: keys.KeyMetadata };
  scheduleKeyDeletion: { params: life.ScheduleKeyDeletionParams; result: keys.KeyMetadata };
  cancelKeyDeletion: { params: life.OnlyKeyIdParams; result: keys.KeyMetadata };
  setDeletionProtection: { params: life.SetDeletionProtectionParams; result: keys.KeyMetadata };
  tagKey: { params: life.TagKeyParams; result: keys.KeyMetadata };
  untagKey: { params: life.UntagKeyParams; result: keys.KeyMetadata };
  createAlias: { params: keys.AliasParams; result: keys.Alias };
  updateAlias: { params: keys.AliasParams; result: keys.Alias };
  deleteAlias: { params: keys.DeleteAliasParams; result: agent.EmptyResult };
  listAliases: { params: keys.ListAliasesParams; result: keys.ListAliasesResult };
  createKeyVersion: { params: keys.CreateKeyVersionParams; result: keys.KeyVersion };
  setPrimaryKeyVersion: { params: keys.KeyVersionParams; result: keys.KeyMetadata };
  listKeyVersions: { params: keys.ListKeyVersionsParams; result: keys.ListKeyVersionsResult };
  describeKeyVersion: { params: keys.KeyVersionParams; result: keys.KeyVersion };
  updateRotationPolicy: { params: life.UpdateRotationPolicyParams; result: keys.KeyMetadata };
  getParametersForImport: { params: life.GetParametersForImportParams; result: life.GetParametersForImportResult };
  importKeyMaterial: { params: life.ImportKeyMaterialParams; result: life.ImportKeyMaterialResult };
  deleteKeyMaterial: { params: life.OnlyKeyIdParams; result: keys.KeyMetadata };
  getKeyPolicy: { params: keys.KeyIdParams; result: policy.KeyPolicyResult };
  setKeyPolicy: { params: policy.SetKeyPolicyParams; result: policy.KeyPolicyResult };

  status: { params: NoParams; result: agent.AgentStatus };
  whoAmI: { params: NoParams; result: agent.WhoAmIResult };
  explain: { params: policy.ExplainParams; result: policy.ExplainResult };
  unlock: { params: agent.UnlockParams; result: agent.AgentStatus };
  lock: { params: NoParams; result: agent.AgentStatus };
  confirmClock: { params: NoParams; result: agent.AgentStatus };
  metrics: { params: NoParams; result: agent.MetricsResult };
  tailAudit: { params: audit.TailAuditParams; result: audit.TailAuditResult };
  listKeyslots: { params: NoParams; result: agent.ListKeyslotsResult };
  addKeyslot: { params: agent.AddKeyslotParams; result: agent.AddKeyslotResult };
  removeKeyslot: { params: agent.RemoveKeyslotParams; result: agent.EmptyResult };
  'rpc.discover': { params: NoParams; result: agent.OpenRpcDocument };
}

/** A method as it is called on the wire. */
export type MethodName = keyof Methods;
export type MethodParams<M extends MethodName> = Methods[M]['params'];
export type MethodResult<M extends MethodName> = Methods[M]['result'];
