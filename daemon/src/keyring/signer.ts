import { setImmediate } from 'node:timers/promises';
import type { GetPublicKeyResult, MessageType, SignatureFormat, SigningAlgorithm } from '@kms-agent/protocol';
import { AgentError } from '@kms-agent/protocol';
import type { Asker } from '../caller/identity.ts';
import { canSign, type Signer as ProviderSigner, type SignInput } from '../providers/provider.ts';
import { findVersion, initialVersion, type Key, type KeyVersionEntry, primaryVersion } from './key.ts';
import type { Keyring } from './keyring.ts';
import { abilitiesOf } from './metadata.ts';
import { isSymmetric, refuseAlgorithm } from './rules.ts';

/** Versions that verify tries when none is named. */
const maxVerifyVersions = 32;

/** What sign and verify are asked. */
export interface SignRequest {
  readonly message: Uint8Array;
  readonly messageType?: MessageType;
  readonly algorithm?: SigningAlgorithm;
  readonly signatureFormat?: SignatureFormat;
  readonly keyVersionId?: string;
}

/** The choices that were made for a request, as they are answered. */
export interface SignChoices {
  readonly algorithm: SigningAlgorithm;
  readonly messageType: MessageType;
  readonly signatureFormat?: SignatureFormat;
}

/** SPKI DER as PEM (RFC 7468 section 13). */
export function encodePublicKeyPem(spki: Uint8Array): string {
  const lines =
    Buffer.from(spki)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN PUBLIC KEY-----\n${lines.join('\n')}\n-----END PUBLIC KEY-----\n`;
}

/** Signs and verifies with keys of the keyring, and shows public keys. */
export class Signer {
  readonly #keyring: Keyring;

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** With the primary version unless told otherwise. */
  async sign(key: Key, request: SignRequest, asker?: Asker): Promise<{ version: KeyVersionEntry; signature: Uint8Array<ArrayBuffer>; choices: SignChoices }> {
    const { signer, choices } = this.#choose(key, request);
    const version = request.keyVersionId === undefined ? primaryVersion(key) : findVersion(key, request.keyVersionId);
    const input = { ...choices, message: request.message };
    const signature = await this.#keyring.withSecret(key, this.#keyring.use(key, version), (ref) => signer.sign(ref, input, asker));
    return { version, signature: new Uint8Array(signature), choices };
  }

  /** With the version that is named, else with the 32 newest, newest first. */
  async verify(
    key: Key,
    request: SignRequest & { signature: Uint8Array },
  ): Promise<{ version: KeyVersionEntry | undefined; valid: boolean; choices: SignChoices }> {
    const { signer, choices } = this.#choose(key, request);
    const input: SignInput = { ...choices, message: request.message };
    const named = request.keyVersionId === undefined ? undefined : findVersion(key, request.keyVersionId);
    for (const version of named ? [named] : key.versions.slice(-maxVerifyVersions).reverse()) {
      if (await signer.verify(this.#keyring.use(key, version, 'public'), { ...input, signature: request.signature })) return { version, valid: true, choices };
      if (!named) await setImmediate(); // 32 versions in one go would keep everybody waiting
    }
    return { version: named, valid: false, choices };
  }

  /** Of the version that sign, or encrypt for an encryption key, would use. @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a symmetric key. */
  async getPublicKey(key: Key, keyVersionId?: string): Promise<GetPublicKeyResult> {
    if (isSymmetric(key.keySpec)) throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'A symmetric key has no public key.' });
    const usual = key.keyUsage === 'SIGN_VERIFY' ? primaryVersion(key) : initialVersion(key);
    const version = keyVersionId === undefined ? usual : findVersion(key, keyVersionId);
    this.#keyring.requireState(key, 'publicKey');
    const spki = version.publicKey ?? (await this.#keyring.providerOf(key).publicKey(version));
    return { keyId: key.keyId, keyVersionId: version.keyVersionId, publicKey: encodePublicKeyPem(spki), keySpec: key.keySpec, keyUsage: key.keyUsage };
  }

  #choose(key: Key, { algorithm: wanted, messageType = 'RAW', signatureFormat }: SignRequest): { signer: ProviderSigner; choices: SignChoices } {
    if (key.keyUsage !== 'SIGN_VERIFY') throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'The key is for encryption.' });
    const { signingAlgorithms } = abilitiesOf(this.#keyring, key);
    const algorithm = wanted ?? signingAlgorithms[0];
    if (!algorithm || !signingAlgorithms.includes(algorithm))
      throw refuseAlgorithm(this.#keyring.findProvider(key.provider), { keySpec: key.keySpec, wanted: algorithm ?? 'key' });
    const isEc = algorithm === 'ECDSA_SHA_256';
    if (signatureFormat && !isEc) throw new AgentError('ERR_INVALID_PARAMS', { path: '/signatureFormat', reason: `does not apply to ${algorithm}` });
    const provider = this.#keyring.providerOf(key);
    if (!canSign(provider)) throw new AgentError('ERR_UNSUPPORTED_OPERATION');
    return { signer: provider, choices: { algorithm, messageType, ...(isEc ? { signatureFormat: signatureFormat ?? 'DER' } : {}) } };
  }
}
