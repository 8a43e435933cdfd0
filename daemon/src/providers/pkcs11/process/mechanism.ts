import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import type { EncryptionAlgorithm, KeySpec, SigningAlgorithm } from '@kms-agent/protocol';
import {
  CKG_MGF1_SHA1,
  CKG_MGF1_SHA256,
  CKM_AES_CBC,
  CKM_AES_ECB,
  CKM_AES_GCM,
  CKM_ECDSA,
  CKM_RSA_PKCS,
  CKM_RSA_PKCS_OAEP,
  CKM_RSA_PKCS_PSS,
  CKM_RSA_X_509,
  CKM_SHA_1,
  CKM_SHA256,
} from './cryptoki.ts';
import type { GcmParams, Mechanism, RsaOAEP, RsaPSS } from './pkcs11js.ts';

/** Kinds of parameters as pkcs11js numbers them. */
const paramsOaep = 4;
const paramsPss = 5;
const paramsGcm = 7;
/** CKZ_DATA_SPECIFIED: the label is given, and empty. */
const dataSpecified = 1;

/** DER of DigestInfo for SHA-256 up to the digest (RFC 8017 section 9.2, note 1). */
const sha256DigestInfo = Buffer.from('3031300d060960864801650304020105000420', 'hex');

/** Named curves in DER (SEC 2). */
export const curveParams: { readonly [S in KeySpec]?: Buffer } = {
  EC_P256: Buffer.from('06082a8648ce3d030107', 'hex'),
  EC_P256K: Buffer.from('06052b8104000a', 'hex'),
};

const curveNames: { readonly [S in KeySpec]?: string } = { EC_P256: 'P-256', EC_P256K: 'secp256k1' };

/** Bytes of an IV: 12 for GCM (NIST SP 800-38D section 5.2.1.1), 16 for CBC. */
export const ivBytes = (algorithm: EncryptionAlgorithm): number => (algorithm === 'AES_GCM' ? 12 : algorithm === 'AES_CBC' ? 16 : 0);

export function aesMechanism(algorithm: EncryptionAlgorithm, iv: Uint8Array, aad: Uint8Array): Mechanism {
  if (algorithm === 'AES_ECB') return { mechanism: CKM_AES_ECB };
  if (algorithm === 'AES_CBC') return { mechanism: CKM_AES_CBC, parameter: Buffer.from(iv) };
  const parameter: GcmParams = { type: paramsGcm, iv: Buffer.from(iv), ivBits: iv.length * 8, aad: Buffer.from(aad), tagBits: 128 };
  return { mechanism: CKM_AES_GCM, parameter };
}

/** RSAES-OAEP with MGF1 of the same hash and an empty label (RFC 8017 section 7.1). */
export function oaepMechanism(algorithm: string): Mechanism {
  const isSha1 = algorithm === 'RSAES_OAEP_SHA_1';
  const [hashAlg, mgf] = isSha1 ? [CKM_SHA_1, CKG_MGF1_SHA1] : [CKM_SHA256, CKG_MGF1_SHA256];
  const parameter: RsaOAEP = { type: paramsOaep, hashAlg, mgf, source: dataSpecified };
  return { mechanism: CKM_RSA_PKCS_OAEP, parameter };
}

export const rawRsa: Mechanism = { mechanism: CKM_RSA_X_509 };

/** How a digest is signed, and what is handed to the token for it. */
export function signMechanism(algorithm: SigningAlgorithm, digest: Uint8Array): { mechanism: Mechanism; input: Buffer } {
  if (algorithm === 'ECDSA_SHA_256') return { mechanism: { mechanism: CKM_ECDSA }, input: Buffer.from(digest) };
  if (algorithm === 'RSA_PKCS1_SHA_256') return { mechanism: { mechanism: CKM_RSA_PKCS }, input: Buffer.concat([sha256DigestInfo, digest]) };
  const parameter: RsaPSS = { type: paramsPss, hashAlg: CKM_SHA256, mgf: CKG_MGF1_SHA256, saltLen: 32 };
  return { mechanism: { mechanism: CKM_RSA_PKCS_PSS, parameter }, input: Buffer.from(digest) };
}

const spki = (key: KeyObject): Uint8Array => new Uint8Array(key.export({ type: 'spki', format: 'der' }));

/** SPKI DER of an RSA public key. */
export function rsaPublicKey(modulus: Uint8Array, exponent: Uint8Array): Uint8Array {
  const [n, e] = [modulus, exponent].map((number) => Buffer.from(number).toString('base64url'));
  return spki(createPublicKey({ key: { kty: 'RSA', n, e } as never, format: 'jwk' }));
}

/** Bytes of an uncompressed point of a 256-bit curve (SEC 1 section 2.3.3); a DER OCTET STRING of one has a tag and a length before it. */
const pointBytes = 65;

/** SPKI DER of a point, which tokens give as a DER OCTET STRING or, some, bare. */
export function ecPublicKey(keySpec: KeySpec, ecPoint: Uint8Array): Uint8Array {
  const point = Buffer.from(ecPoint.length === pointBytes + 2 && ecPoint[0] === 0x04 && ecPoint[1] === pointBytes ? ecPoint.subarray(2) : ecPoint);
  const [x, y] = [point.subarray(1, 33), point.subarray(33, 65)].map((number) => number.toString('base64url'));
  return spki(createPublicKey({ key: { kty: 'EC', crv: curveNames[keySpec], x, y } as never, format: 'jwk' }));
}

/** The numbers of a private key as PKCS#8 DER (RFC 5958), base64url, and its public key as SPKI DER. @throws Error when it is none. */
export function readPrivateKey(pkcs8: Uint8Array): { jwk: Record<string, string>; publicKey: Uint8Array } {
  const key = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' });
  return { jwk: key.export({ format: 'jwk' }) as Record<string, string>, publicKey: spki(createPublicKey(key)) };
}
