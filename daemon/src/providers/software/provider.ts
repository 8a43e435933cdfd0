import { randomFillSync } from 'node:crypto';
import { AgentError, type ImportWrappingAlgorithm, type KeySpec, type KeyUsage } from '@kms-agent/protocol';
import { collectKeyObjects } from '../../os/garbage.ts';
import { allocateSecret } from '../../os/secret-bytes.ts';
import type {
  Abilities,
  DecryptInput,
  Encrypter,
  EncryptInput,
  EncryptOutput,
  Forgetter,
  GeneratedMaterial,
  Importer,
  MaterialRef,
  NewMaterial,
  Provider,
  ProviderStatus,
  Signer,
  SignInput,
  UnwrapInput,
  UnwrappedMaterial,
  VerifyInput,
  WrappingPair,
  WrappingPairInput,
} from '../provider.ts';
import { destroyMaterial } from './destroyed.ts';
import { generatePair, generateRsaPair } from './generation.ts';
import { type GenerationLimits, Generations } from './generations.ts';
import { PrivateOperations } from './private-operations.ts';
import { PublicOperations } from './public-operations.ts';
import { Symmetric } from './symmetric.ts';
import { unwrapOaep } from './wrapping.ts';

const none: Abilities = { encryptionAlgorithms: [], signingAlgorithms: [] };
const rsaEncryption: Abilities = { ...none, encryptionAlgorithms: ['RSAES_OAEP_SHA_256', 'RSAES_OAEP_SHA_1'] };
const rsaSigning: Abilities = { ...none, signingAlgorithms: ['RSA_PSS_SHA_256', 'RSA_PKCS1_SHA_256'] };
const rsa = { ENCRYPT_DECRYPT: rsaEncryption, SIGN_VERIFY: rsaSigning };
const ec = { SIGN_VERIFY: { ...none, signingAlgorithms: ['ECDSA_SHA_256'] } } as const;

/** What this provider holds, and for which usage. */
const offers: { readonly [S in KeySpec]?: { readonly [U in KeyUsage]?: Abilities } } = {
  AES_256: { ENCRYPT_DECRYPT: { ...none, encryptionAlgorithms: ['AES_GCM'] } },
  RSA_2048: rsa,
  RSA_3072: rsa,
  EC_P256: ec,
  EC_P256K: ec,
};

/** Keys made by the agent, in its memory while unlocked, with OpenSSL through node:crypto. */
export class SoftwareProvider implements Provider, Encrypter, Signer, Importer, Forgetter {
  readonly name = 'software';
  readonly kind = 'software';
  readonly #symmetric = new Symmetric();
  readonly #private = new PrivateOperations();
  readonly #public = new PublicOperations();
  readonly #generations: Generations;

  constructor(limits: GenerationLimits = { maxGenerations: 2, maxQueuedGenerations: 64 }) {
    this.#generations = new Generations(limits);
  }

  abilities(keySpec: KeySpec, keyUsage: KeyUsage): Abilities | undefined {
    return offers[keySpec]?.[keyUsage];
  }

  /** Ready since the start. */
  async ready(): Promise<void> {}

  status(): ProviderStatus {
    return { name: this.name, kind: this.kind, state: 'ok' };
  }

  async generate({ keySpec }: NewMaterial): Promise<GeneratedMaterial> {
    if (keySpec === 'AES_256') return { material: randomFillSync(allocateSecret(32)) };
    if (keySpec === 'RSA_2048' || keySpec === 'RSA_3072') return await this.#generations.run(() => generatePair(keySpec));
    if (keySpec === 'EC_P256' || keySpec === 'EC_P256K') return await generatePair(keySpec);
    throw new AgentError('ERR_UNSUPPORTED_OPERATION');
  }

  async publicKey(ref: MaterialRef): Promise<Uint8Array> {
    if (ref.keySpec === 'AES_256') throw new AgentError('ERR_UNSUPPORTED_OPERATION');
    return this.#public.publicKey(ref);
  }

  async encrypt(ref: MaterialRef, input: EncryptInput): Promise<EncryptOutput> {
    return input.algorithm === 'AES_GCM' ? this.#symmetric.encrypt(ref, input) : await this.#public.encrypt(ref, input);
  }

  async decrypt(ref: MaterialRef, input: DecryptInput): Promise<Uint8Array> {
    return input.algorithm === 'AES_GCM' ? this.#symmetric.decrypt(ref, input) : await this.#private.decrypt(ref, input);
  }

  sign(ref: MaterialRef, input: SignInput): Promise<Uint8Array> {
    return this.#private.sign(ref, input); // no promise more on the way of every request
  }

  verify(ref: MaterialRef, input: VerifyInput): Promise<boolean> {
    return this.#public.verify(ref, input);
  }

  importAlgorithms(keySpec: KeySpec): readonly ImportWrappingAlgorithm[] {
    return keySpec === 'AES_256' ? ['RSAES_OAEP_SHA_256'] : [];
  }

  async makeWrappingPair({ keySpec }: WrappingPairInput): Promise<WrappingPair> {
    const { material, publicKey } = await this.#generations.run(() => generateRsaPair(Number(keySpec.slice('RSA_'.length))));
    return { publicKey, state: material };
  }

  async unwrap({ keySpec }: NewMaterial, { state, wrapped }: UnwrapInput): Promise<UnwrappedMaterial> {
    const material = await unwrapOaep(state, wrapped);
    if (keySpec === 'AES_256' && material.length === 32) return { material, unwrappedIn: 'AGENT' };
    material.fill(0);
    throw new AgentError('ERR_INVALID_KEY_MATERIAL', { hint: 'An AES_256 key is exactly 32 bytes.' });
  }

  /** When it returns the key is in memory no more. */
  async destroy({ keyVersionId, material }: MaterialRef): Promise<void> {
    const wasUsed = this.forget(keyVersionId);
    destroyMaterial(material);
    if (wasUsed) collectKeyObjects();
  }

  /** Drops what is cached for a version. @returns whether a key object was among it. */
  forget(keyVersionId: string): boolean {
    const secret = [this.#symmetric.drop(keyVersionId), this.#private.drop(keyVersionId)];
    this.#public.drop(keyVersionId);
    return secret.includes(true);
  }

  async lock(): Promise<void> {
    this.#symmetric.clear();
    this.#private.clear();
    this.#public.clear();
  }

  async close(): Promise<void> {
    await this.lock();
  }
}
