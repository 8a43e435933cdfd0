import { hash } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import type { Asker } from '../../caller/identity.ts';
import type { DecryptInput, EncryptInput, EncryptOutput, MaterialRef, SignInput } from '../provider.ts';
import type { PublicOperations } from '../software/public-operations.ts';
import type { KeyCalls } from './key-calls.ts';
import type { TokenLink } from './link.ts';
import { TokenFailure } from './messages.ts';
import { toRef } from './objects.ts';
import { formatSignature } from './signature-format.ts';

const blockBytes = 16;
/** Times that a key which proves itself is asked for a signature that verifies. */
const signTries = 2;

/** Encrypts, decrypts and signs with keys of a token. */
export class TokenOperations {
  readonly #link: TokenLink;
  readonly #keys: KeyCalls;
  readonly #public: PublicOperations;

  constructor(link: TokenLink, keys: KeyCalls, publicOperations: PublicOperations) {
    this.#link = link;
    this.#keys = keys;
    this.#public = publicOperations;
  }

  async encrypt(ref: MaterialRef, input: EncryptInput, asker?: Asker): Promise<EncryptOutput> {
    const { algorithm, plaintext } = input;
    if (algorithm.startsWith('RSAES_')) return await this.#public.encrypt(ref, input);
    if (input.paddingMode === 'NO_PADDING' && (plaintext.length === 0 || plaintext.length % blockBytes !== 0))
      throw new AgentError('ERR_INVALID_PARAMS', { path: '/plaintext', reason: 'must be a multiple of 16 bytes with NO_PADDING' });
    return await this.#keys.run(ref.keyVersionId, () => this.#link.call('encrypt', { key: toRef(ref), ...input }, asker));
  }

  async decrypt(ref: MaterialRef, input: DecryptInput, asker?: Asker): Promise<Uint8Array> {
    const params = { key: toRef(ref), ...input };
    return await this.#keys.run(ref.keyVersionId, async () => {
      try {
        return (await this.#link.call('decrypt', params, asker)).plaintext;
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'doubtful') throw error;
        return (await this.#link.call('judge', params, asker)).plaintext;
      }
    });
  }

  /** Each signature is verified: one that is not the key's is another's, or a fault's, which with RSA may give the key away. Nobody gets it. */
  async sign(ref: MaterialRef, input: SignInput, asker?: Asker): Promise<Uint8Array> {
    const { algorithm, message, messageType, signatureFormat } = input;
    const digest = messageType === 'DIGEST' ? message : hash('sha256', message, 'buffer');
    const key = toRef(ref);
    const asTokensGiveIt = algorithm === 'ECDSA_SHA_256' ? ({ signatureFormat: 'P1363' } as const) : {};
    return await this.#keys.run(ref.keyVersionId, async () => {
      for (let left = signTries; left > 0; left -= 1) {
        const { signature } = await this.#link.call('sign', { key, algorithm, digest }, asker);
        if (await this.#public.verify(ref, { ...input, signature, ...asTokensGiveIt })) return formatSignature(signature, algorithm, signatureFormat);
        await this.#link.call('prove', { key }, asker);
      }
      throw new TokenFailure({ kind: 'failed', rv: 'a signature that does not verify', call: 'C_Sign' });
    });
  }
}
