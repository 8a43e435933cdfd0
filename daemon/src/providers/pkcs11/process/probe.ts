import { constants, createHash, createPublicKey, publicEncrypt, randomBytes, verify } from 'node:crypto';
import type { EncryptionAlgorithm, ImportWrappingAlgorithm, KeySpec, SigningAlgorithm } from '@kms-agent/protocol';
import { type OaepWay, type TokenAbilities, TokenFailure } from '../messages.ts';
import {
  CKA_DECRYPT,
  CKA_ENCRYPT,
  CKA_SIGN,
  CKA_UNWRAP,
  CKA_VERIFY,
  CKA_WRAP,
  CKM_AES_KEY_GEN,
  CKM_AES_KEY_WRAP,
  CKM_EC_KEY_PAIR_GEN,
  CKM_RSA_PKCS_KEY_PAIR_GEN,
} from './cryptoki.ts';
import { readPublicKey } from './keys.ts';
import { measureAes } from './measure.ts';
import { aesMechanism, ivBytes, oaepMechanism, rawRsa, signMechanism } from './mechanism.ts';
import { removeOaep } from './padding.ts';
import type { Handle } from './pkcs11js.ts';
import type { Session } from './session.ts';
import { measuredAes, throwawayAes, throwawayPair } from './template.ts';
import type { Token } from './token.ts';

/** Times that something is tried before the token is said not to do it. */
const attempts = 3;

const oaepAlgorithms = ['RSAES_OAEP_SHA_256', 'RSAES_OAEP_SHA_1'] as const;

/** What is not tried, because it has cost helpers, and who hears of what is. */
export interface Trying {
  readonly costly: readonly string[];
  readonly onTry: (name: string) => Promise<void>;
}

/** Asks a token what it really does, once, with session keys that are thrown away: its list of mechanisms says OAEP and may mean SHA-1 only. */
export class Probe {
  readonly #token: Token;
  readonly #works: string[] = [];
  readonly #refused: string[] = [];
  readonly #doubtful: string[] = [];
  readonly #known: TokenAbilities | undefined;
  readonly #trying: Trying;

  /** @param known - what an earlier one found: only what is doubtful of it is tried, once, because it is tried again later. */
  constructor(token: Token, known: TokenAbilities | undefined, trying: Trying) {
    this.#token = token;
    this.#known = known;
    this.#trying = trying;
  }

  /** A token that is sick does not come this far: what it is asked after is a check. What is sick of it makes the outcome doubtful. */
  async run(): Promise<TokenAbilities> {
    const aesBits = await this.#filter(
      [256, 192, 128],
      (bits) => `AES-${bits} keys`,
      (bits) => this.#token.use(async (session) => session.destroy(await session.generateKey(CKM_AES_KEY_GEN, throwawayAes(bits)))),
    );
    const aes =
      aesBits.length === 0 ? [] : await this.#filter<EncryptionAlgorithm>(['AES_GCM', 'AES_CBC', 'AES_ECB'], String, (algorithm) => this.#tryAes(algorithm));
    const rsaBits = await this.#probeRsaBits();
    const hasRsa = rsaBits.length > 0;
    const rsaSigning = hasRsa
      ? await this.#filter<SigningAlgorithm>(['RSA_PSS_SHA_256', 'RSA_PKCS1_SHA_256'], String, (algorithm) => this.#trySign('RSA_2048', algorithm))
      : [];
    const oaep: Record<string, OaepWay> = {};
    for (const algorithm of hasRsa ? oaepAlgorithms : []) {
      if (await this.#tries(algorithm, () => this.#tryOaep(algorithm, 'token'))) oaep[algorithm] = 'token';
      else if (await this.#tries(`${algorithm} over RSA_X_509`, () => this.#tryOaep(algorithm, 'helper'))) oaep[algorithm] = 'helper';
    }
    const curves = await this.#filter<KeySpec>(
      ['EC_P256', 'EC_P256K'],
      (curve) => `ECDSA_SHA_256 with ${curve}`,
      (curve) => this.#trySign(curve, 'ECDSA_SHA_256'),
    );
    const candidates = hasRsa && aes.length > 0 ? oaepAlgorithms : [];
    const unwraps = await this.#filter<ImportWrappingAlgorithm>(
      candidates,
      (algorithm) => `unwrapping with ${algorithm}`,
      (algorithm) => this.#tryUnwrap(algorithm),
    );
    return { aesBits, aes, rsaBits, oaep, rsaSigning, curves, unwraps, works: this.#works, refused: this.#refused, doubtful: this.#doubtful };
  }

  /** What an earlier probe found, and is no doubt about. */
  #recall(name: string): boolean | undefined {
    if (!this.#known || this.#known.doubtful.includes(name)) return undefined;
    const refused = this.#known.refused.find((line) => line.startsWith(`${name} (`));
    if (refused !== undefined) this.#refused.push(refused);
    else if (this.#known.works.includes(name)) this.#works.push(name);
    else return undefined;
    return refused === undefined;
  }

  async #tries(name: string, attempt: () => Promise<unknown>): Promise<boolean> {
    const recalled = this.#recall(name);
    if (recalled !== undefined) return recalled;
    if (this.#trying.costly.includes(name)) {
      this.#doubtful.push(name);
      this.#refused.push(`${name} (its helper was lost)`);
      return false;
    }
    await this.#trying.onTry(name);
    // A token that cannot do something may say so with the same value as one that is sick for a moment: that is asked again.
    for (let left = this.#known ? 1 : attempts; ; left -= 1) {
      try {
        await attempt();
        this.#works.push(name);
        return true;
      } catch (error) {
        if (!(error instanceof TokenFailure)) throw error;
        if (error.failure.kind === 'fault' && left > 1) continue;
        if (error.failure.kind === 'fault') this.#doubtful.push(name);
        this.#refused.push(`${name} (${error.message})`);
        return false;
      }
    }
  }

  async #filter<T>(candidates: readonly T[], nameOf: (candidate: T) => string, attempt: (candidate: T) => Promise<unknown>): Promise<T[]> {
    const working: T[] = [];
    for (const candidate of candidates) if (await this.#tries(nameOf(candidate), () => attempt(candidate))) working.push(candidate);
    return working;
  }

  async #probeRsaBits(): Promise<number[]> {
    if (!this.#token.mechanisms().includes(CKM_RSA_PKCS_KEY_PAIR_GEN)) return [];
    const max = this.#token.maxKeyBits(CKM_RSA_PKCS_KEY_PAIR_GEN);
    return [2048, 3072, 4096].filter((bits) => bits <= max); // by what it says: making one of 4096 takes seconds
  }

  async #tryAes(algorithm: EncryptionAlgorithm): Promise<void> {
    const [iv, aad] = [randomBytes(ivBytes(algorithm)), algorithm === 'AES_GCM' ? randomBytes(22) : Buffer.alloc(0)];
    const plaintext = randomBytes(64);
    await this.#token.use(async (session) => {
      const key = await session.generateKey(CKM_AES_KEY_GEN, throwawayAes());
      const ciphertext = await session.encrypt(aesMechanism(algorithm, iv, aad), key, plaintext);
      const opened = await session.decrypt(aesMechanism(algorithm, iv, aad), key, ciphertext);
      session.destroy(key);
      expectSame(opened, plaintext, algorithm);
    });
  }

  async #trySign(keySpec: KeySpec, algorithm: SigningAlgorithm): Promise<void> {
    const message = randomBytes(32);
    const { mechanism, input } = signMechanism(algorithm, createHash('sha256').update(message).digest());
    await this.#withPair(keySpec, [CKA_SIGN, CKA_VERIFY], async (session, privateKey, spki) => {
      const signature = await session.sign(mechanism, privateKey, input);
      const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
      const padding = algorithm === 'RSA_PSS_SHA_256' ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
      const options = algorithm === 'ECDSA_SHA_256' ? ({ key, dsaEncoding: 'ieee-p1363' } as const) : { key, padding, saltLength: 32 };
      if (!verify('sha256', message, options, signature)) throw wrongAnswer(algorithm);
    });
  }

  async #tryOaep(algorithm: (typeof oaepAlgorithms)[number], way: OaepWay): Promise<void> {
    const message = randomBytes(32);
    await this.#withPair('RSA_2048', [CKA_ENCRYPT, CKA_DECRYPT], async (session, privateKey, spki) => {
      const opened = await session.decrypt(way === 'token' ? oaepMechanism(algorithm) : rawRsa, privateKey, sealOaep(algorithm, spki, message));
      expectSame(way === 'token' ? opened : removeOaep(algorithm, opened), message, algorithm);
    });
  }

  /** Unwraps a key and sees that it is the same, and that its length can be told: else a short one would pass for a long one. */
  async #tryUnwrap(algorithm: ImportWrappingAlgorithm): Promise<void> {
    const value = randomBytes(32);
    await this.#withPair('RSA_2048', [CKA_WRAP, CKA_UNWRAP], async (session, privateKey, spki) => {
      const wrapped = sealOaep(algorithm, spki, value);
      const key = session.unwrap(oaepMechanism(algorithm), privateKey, wrapped, measuredAes());
      const bytes = await measureAes(session, key, () => session.generateKey(CKM_AES_KEY_GEN, throwawayAes(256, [CKA_WRAP])), CKM_AES_KEY_WRAP);
      session.destroy(key);
      if (bytes !== value.length) throw wrongAnswer(`the length of a key unwrapped with ${algorithm}`);
    });
  }

  async #withPair(keySpec: KeySpec, uses: readonly number[], work: (session: Session, privateKey: Handle, spki: Uint8Array) => Promise<void>): Promise<void> {
    const { publicTemplate, privateTemplate } = throwawayPair(keySpec, uses);
    await this.#token.use(async (session) => {
      const pair = await session.generatePair(keySpec.startsWith('EC_') ? CKM_EC_KEY_PAIR_GEN : CKM_RSA_PKCS_KEY_PAIR_GEN, publicTemplate, privateTemplate);
      await work(session, pair.privateKey, readPublicKey(session, pair.publicKey, keySpec));
      for (const object of [pair.privateKey, pair.publicKey]) session.destroy(object);
    });
  }
}

const wrongAnswer = (what: string): TokenFailure => new TokenFailure({ kind: 'failed', rv: 'a wrong answer', call: what });

function expectSame(got: Uint8Array | undefined, wanted: Uint8Array, what: string): void {
  if (!got || Buffer.compare(got, wanted) !== 0) throw wrongAnswer(what);
}

/** RSAES-OAEP with a public key as SPKI DER. */
function sealOaep(algorithm: string, spki: Uint8Array, message: Uint8Array): Buffer {
  const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  return publicEncrypt({ key, oaepHash: algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256', padding: constants.RSA_PKCS1_OAEP_PADDING }, message);
}
