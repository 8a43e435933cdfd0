import {
  type AdvanceDecryptParams,
  type AdvanceDecryptResult,
  type AdvanceEncryptParams,
  type AdvanceEncryptResult,
  type AdvanceGenerateDataKeyResult,
  AgentError,
  type DecryptParams,
  type DecryptResult,
  type EncryptParams,
  type EncryptResult,
  type GenerateDataKeyParams,
  type GenerateDataKeyResult,
  type GenerateDataKeyWithoutPlaintextResult,
  type GenerateRandomParams,
  type GenerateRandomResult,
  type GetPublicKeyParams,
  type GetPublicKeyResult,
  type ReEncryptParams,
  type ReEncryptResult,
  type SignParams,
  type SignResult,
  type VerifyParams,
  type VerifyResult,
} from '@kms-agent/protocol';
import type { CallOptions, Transport } from './transport.ts';

/** Adds what zeroes the plaintext of a data key: `using dataKey = await kms.advanceGenerateDataKey()`. */
function disposable<R extends { plaintext: Uint8Array }>(result: R): R & Disposable {
  return Object.defineProperty(result as R & Disposable, Symbol.dispose, { value: () => result.plaintext.fill(0) }); // defined in this line
}

/** The methods that use keys. */
export class CryptographyClient {
  protected readonly transport: Transport;

  constructor(transport: Transport) {
    this.transport = transport;
  }

  /**
   * Raw operation: encrypts with the key's initial version, also after a rotation; new code uses {@link AgentClient.advanceEncrypt}.
   *
   * @returns `ciphertextBlob`: ciphertext ‖ 16-byte tag for AES_GCM (NIST SP 800-38D), RSAES-OAEP (RFC 8017) for RSA; keep `iv` and `algorithm` with it. The answer, spread and completed with `aad`, is a request of decrypt.
   * @throws AgentError `ERR_INVALID_PARAMS` past k − 2h − 2 bytes for RSA; `ERR_KEY_NOT_FOUND`; `ERR_UNSUPPORTED_ALGORITHM`.
   */
  encrypt(params: EncryptParams, options?: CallOptions): Promise<EncryptResult> {
    return this.transport.call('encrypt', params, options);
  }

  /**
   * Raw operation: decrypts what encrypt, generateDataKey or any standard library made, with the initial version unless told otherwise.
   *
   * @returns `plaintext` in memory of its own.
   * @throws AgentError `ERR_INVALID_CIPHERTEXT` for a wrong key, IV or AAD and for changed bytes alike.
   */
  decrypt(params: DecryptParams, options?: CallOptions): Promise<DecryptResult> {
    return this.transport.call('decrypt', params, options);
  }

  /**
   * Encrypts 1 to 65,536 bytes with the primary version of a symmetric key, into a blob that names the version.
   *
   * @returns `ciphertextBlob`: an advance blob; keep it and the `aad`, nothing else.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for an asymmetric key; `ERR_KEY_NOT_FOUND`.
   */
  advanceEncrypt(params: AdvanceEncryptParams, options?: CallOptions): Promise<AdvanceEncryptResult> {
    return this.transport.call('advanceEncrypt', params, options);
  }

  /**
   * Decrypts an advance blob with the version it names, or a raw blob when `keyId` and `iv` are given.
   *
   * @returns `plaintext` in memory of its own.
   * @throws AgentError `ERR_INVALID_CIPHERTEXT` for whatever does not open; not retryable.
   */
  advanceDecrypt(params: AdvanceDecryptParams, options?: CallOptions): Promise<AdvanceDecryptResult> {
    return this.transport.call('advanceDecrypt', params, options);
  }

  /** Raw operation: makes a data key under the initial version. */
  async generateDataKey(params: GenerateDataKeyParams = {}, options?: CallOptions): Promise<Disposable & GenerateDataKeyResult> {
    return disposable(await this.transport.call('generateDataKey', params, options));
  }

  /** Makes a data key: plaintext, and an advance blob under the primary version. */
  async advanceGenerateDataKey(params: GenerateDataKeyParams = {}, options?: CallOptions): Promise<Disposable & AdvanceGenerateDataKeyResult> {
    return disposable(await this.transport.call('advanceGenerateDataKey', params, options));
  }

  /** Makes a data key and answers only its advance blob. */
  generateDataKeyWithoutPlaintext(params: GenerateDataKeyParams = {}, options?: CallOptions): Promise<GenerateDataKeyWithoutPlaintextResult> {
    return this.transport.call('generateDataKeyWithoutPlaintext', params, options);
  }

  /**
   * Moves a ciphertext to another key, or to the newest version of its own, without showing the plaintext. `aad` is never carried over.
   *
   * @returns An advance blob under the destination's primary version.
   * @throws AgentError `ERR_INVALID_CIPHERTEXT`.
   */
  reEncrypt(params: ReEncryptParams, options?: CallOptions): Promise<ReEncryptResult> {
    return this.transport.call('reEncrypt', params, options);
  }

  /**
   * Signs a message of at most 64 KiB, or its 32-byte SHA-256 with `messageType: 'DIGEST'`, with the key's primary version.
   *
   * @returns `signature`: ASN.1 DER for ECDSA (RFC 3279 section 2.2.3), or r‖s with `signatureFormat: 'P1363'`; k bytes for RSA.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a key that does not sign.
   */
  sign(params: SignParams, options?: CallOptions): Promise<SignResult> {
    return this.transport.call('sign', params, options);
  }

  /**
   * Says whether a signature is valid. The answer is an object and always truthy: look at `valid`, or use {@link AgentClient.assertValidSignature}.
   *
   * @returns `valid`, and the `keyVersionId` that the signature is of.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a key that does not sign; never for a bad signature.
   */
  verify(params: VerifyParams, options?: CallOptions): Promise<VerifyResult> {
    return this.transport.call('verify', params, options);
  }

  /**
   * Answers the public key as SPKI PEM (RFC 7468), of the version that sign or encrypt would use.
   *
   * @returns `publicKey`: PEM text.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a symmetric key.
   */
  getPublicKey(params: GetPublicKeyParams, options?: CallOptions): Promise<GetPublicKeyResult> {
    return this.transport.call('getPublicKey', params, options);
  }

  /** Answers random bytes. */
  generateRandom(params: GenerateRandomParams, options?: CallOptions): Promise<GenerateRandomResult> {
    return this.transport.call('generateRandom', params, options);
  }

  /** Verifies, and throws when the signature is not valid. @throws AgentError `ERR_SIGNATURE_INVALID`. */
  async assertValidSignature(params: VerifyParams, options?: CallOptions): Promise<VerifyResult> {
    const result = await this.verify(params, options);
    if (!result.valid) throw new AgentError('ERR_SIGNATURE_INVALID');
    return result;
  }
}
