import { constants, createCipheriv, createPublicKey, publicEncrypt, randomBytes } from 'node:crypto';
import type { AgentClient, ImportWrappingAlgorithm } from '@kms-agent/client';

function oaep(publicKey: string, bytes: Uint8Array, hash: 'sha1' | 'sha256'): Uint8Array {
  return publicEncrypt({ key: createPublicKey(publicKey), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: hash }, bytes);
}

/** RSA_AES_KEY_WRAP_SHA_256: RSAES-OAEP of a fresh AES key, then AES-KWP (RFC 5649) of the material under it. */
function wrapTwofold(publicKey: string, material: Uint8Array): Uint8Array {
  const kek = randomBytes(32);
  const cipher = createCipheriv('aes256-wrap-pad', kek, Buffer.from('A65959A6', 'hex'));
  return Buffer.concat([oaep(publicKey, kek, 'sha256'), cipher.update(material), cipher.final()]);
}

/** Wraps material with a public key in PEM. */
export function wrapMaterial(publicKey: string, material: Uint8Array, algorithm: ImportWrappingAlgorithm): Uint8Array {
  if (algorithm === 'RSA_AES_KEY_WRAP_SHA_256') return wrapTwofold(publicKey, material);
  return oaep(publicKey, material, algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256');
}

/** Asks for import parameters, wraps material with them, and imports it. */
export async function importInto(kms: AgentClient, { keyId }: { readonly keyId: string }, material: Uint8Array, algorithm: ImportWrappingAlgorithm) {
  const { importToken, publicKey } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048', wrappingAlgorithm: algorithm });
  return await kms.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material, algorithm) });
}
