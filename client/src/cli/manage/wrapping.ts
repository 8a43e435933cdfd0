import { constants, createCipheriv, createPrivateKey, type KeyObject, publicEncrypt, randomBytes } from 'node:crypto';
import type { ImportWrappingAlgorithm, KeySpec } from '@kms-agent/protocol';
import { UsageError } from '../files.ts';

/** The alternative initial value of AES-KWP (RFC 5649 section 3). */
const kwpIv = Buffer.from('A65959A6', 'hex');

function encryptOaep(publicKey: string, bytes: Uint8Array, oaepHash: 'sha1' | 'sha256'): Uint8Array {
  return publicEncrypt({ key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, bytes);
}

/** RSAES-OAEP of a fresh AES key, then AES-KWP of the material under it (PKCS#11 section 6.1.22, CKM_RSA_AES_KEY_WRAP). */
function wrapTwofold(publicKey: string, material: Uint8Array): Uint8Array {
  const wrappingKey = randomBytes(32);
  try {
    const cipher = createCipheriv('id-aes256-wrap-pad', wrappingKey, kwpIv);
    return Buffer.concat([encryptOaep(publicKey, wrappingKey, 'sha256'), cipher.update(material), cipher.final()]);
  } finally {
    wrappingKey.fill(0);
  }
}

/** Wraps material as the agent asked for it (RFC 8017 section 7.1). */
export function wrapMaterial(publicKey: string, algorithm: ImportWrappingAlgorithm, material: Uint8Array): Uint8Array {
  if (algorithm === 'RSA_AES_KEY_WRAP_SHA_256') return wrapTwofold(publicKey, material);
  return encryptOaep(publicKey, material, algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256');
}

const curveSpecs: Readonly<Record<string, string>> = { prime256v1: 'EC_P256', secp256k1: 'EC_P256K' };

function specOf({ asymmetricKeyType, asymmetricKeyDetails: { namedCurve = '', modulusLength = 0 } = {} }: KeyObject): string {
  if (asymmetricKeyType === 'rsa') return `RSA_${modulusLength}`;
  return (asymmetricKeyType === 'ec' ? curveSpecs[namedCurve] : undefined) ?? `${asymmetricKeyType ?? 'unknown'} ${namedCurve}`.trim();
}

function readPrivateKey(file: Buffer, keySpec: KeySpec): KeyObject {
  try {
    return createPrivateKey(file.includes('-----BEGIN') ? { key: file, format: 'pem' } : { key: file, format: 'der', type: 'pkcs8' });
  } catch (cause) {
    throw new UsageError(`${keySpec} takes a private key without a passphrase, as PKCS#8 DER or as PEM; the file is none`, { cause });
  }
}

/**
 * What is wrapped of a file: the raw bytes of an AES key, PKCS#8 DER of a private key.
 * @throws UsageError that says what the key takes.
 */
export function readMaterial(file: Uint8Array, keySpec: KeySpec): Uint8Array {
  if (keySpec.startsWith('AES_')) {
    const length = Number(keySpec.slice('AES_'.length)) / 8;
    if (file.length === length) return file;
    throw new UsageError(
      `${keySpec} takes ${length} bytes; there are ${file.length}${file.length === length + 1 ? ', perhaps with a line feed at the end' : ''}`,
    );
  }
  const key = readPrivateKey(Buffer.from(file.buffer, file.byteOffset, file.byteLength), keySpec);
  if (specOf(key) !== keySpec) throw new UsageError(`${keySpec} takes a private key of its kind; this one is ${specOf(key)}`);
  return key.export({ type: 'pkcs8', format: 'der' });
}
