import { constants, publicEncrypt } from 'node:crypto';
import type { AgentClient, ImportKeyMaterialResult } from '@kms-agent/client';

/** Wraps raw material as getParametersForImport asks for it. */
export function wrapMaterial(publicKey: string, material: Uint8Array): Uint8Array {
  return publicEncrypt({ key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }, material);
}

/** Does the whole import. */
export async function importMaterial(
  kms: AgentClient,
  keyId: string,
  material: Uint8Array,
  expiry: { materialExpireTime?: string } = {},
): Promise<ImportKeyMaterialResult> {
  const { publicKey, importToken } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
  return await kms.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material), ...expiry });
}
