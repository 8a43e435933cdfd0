import { createPrivateKey, webcrypto } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';

/**
 * Unwraps RSAES-OAEP with SHA-256 (RFC 8017 section 7.1.2), off the event loop.
 * @param privateKey - PKCS#8 DER.
 * @throws AgentError `ERR_INVALID_KEY_MATERIAL` for whatever does not unwrap.
 */
export async function unwrapOaep(privateKey: Uint8Array, wrapped: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = Buffer.from(privateKey.buffer, privateKey.byteOffset, privateKey.byteLength);
  const key = createPrivateKey({ key: bytes, format: 'der', type: 'pkcs8' }).toCryptoKey({ name: 'RSA-OAEP', hash: 'SHA-256' }, false, ['decrypt']);
  try {
    return new Uint8Array(await webcrypto.subtle.decrypt({ name: 'RSA-OAEP' }, key, new Uint8Array(wrapped)));
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === 'OperationError')
      throw new AgentError('ERR_INVALID_KEY_MATERIAL', { hint: 'It was not wrapped with the public key and algorithm that go with this token.' });
    throw cause;
  }
}
