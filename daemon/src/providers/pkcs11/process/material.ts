import { createDecipheriv } from 'node:crypto';
import { type NewKey, TokenFailure } from '../messages.ts';
import { readPrivateKey } from './mechanism.ts';

/** The alternative initial value of AES-KWP (RFC 5649 section 3). */
const kwpIv = Buffer.from('A65959A6', 'hex');

const invalid = (): TokenFailure => new TokenFailure({ kind: 'invalid' });

/** What AES-KWP wrapped (RFC 5649). The wrapping key is zeroed. @throws TokenFailure of kind `invalid`. */
export function unwrapKwp(wrappingKey: Uint8Array, wrapped: Uint8Array): Uint8Array {
  try {
    const decipher = createDecipheriv('aes256-wrap-pad', wrappingKey, kwpIv);
    return Buffer.concat([decipher.update(wrapped), decipher.final()]);
  } catch {
    throw invalid(); // a wrong key, or no such wrapping: OpenSSL does not say which, and nobody needs to know
  } finally {
    wrappingKey.fill(0);
  }
}

/** The numbers of a PKCS#8 private key of the right kind and size. @throws TokenFailure of kind `invalid`. */
export function readMaterial(key: NewKey, pkcs8: Uint8Array): ReturnType<typeof readPrivateKey> {
  try {
    const read = readPrivateKey(pkcs8);
    if (specOf(read.jwk) === key.keySpec) return read;
  } catch {
    throw invalid(); // no PKCS#8: OpenSSL says it in many ways
  }
  throw invalid();
}

const curveSpecs: Readonly<Record<string, string>> = { 'P-256': 'EC_P256', secp256k1: 'EC_P256K' };

function specOf({ kty, crv, n = '' }: Record<string, string>): string | undefined {
  if (kty === 'EC') return curveSpecs[crv ?? ''];
  const modulus = Buffer.from(n, 'base64url');
  return kty === 'RSA' && (modulus[0] ?? 0) >= 0x80 ? `RSA_${modulus.length * 8}` : undefined; // with its highest bit set, as many bits as it says
}
