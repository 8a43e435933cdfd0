import type { EncryptionAlgorithm } from '@kms-agent/protocol';
import { type Calls, type MadeKey, type NewKey, type TokenAbilities, TokenFailure } from '../messages.ts';
import {
  CKA_EXTRACTABLE,
  CKA_MODULUS,
  CKA_SENSITIVE,
  CKA_WRAP,
  CKM_AES_KEY_GEN,
  CKM_AES_KEY_WRAP,
  CKM_RSA_PKCS_KEY_PAIR_GEN,
  CKO_PRIVATE_KEY,
  CKO_PUBLIC_KEY,
} from './cryptoki.ts';
import { readPublicKey } from './keys.ts';
import { readMaterial, unwrapKwp } from './material.ts';
import { measureAes } from './measure.ts';
import { oaepMechanism, rawRsa } from './mechanism.ts';
import { removeOaep } from './padding.ts';
import type { Handle } from './pkcs11js.ts';
import type { Prover } from './proof.ts';
import type { Session } from './session.ts';
import { classOf, createdAes, createdPrivateKey, findById, measuredAes, throwawayAes, unwrappedAes, wrappingPairTemplates } from './template.ts';
import type { Token } from './token.ts';

const invalid = (): TokenFailure => new TokenFailure({ kind: 'invalid' });

/** Takes in material that its owner wrapped: inside the token where that can unwrap it, else in the helper. */
export class MaterialImport {
  readonly #token: Token;
  readonly #prover: Prover;
  readonly #abilities: TokenAbilities;

  constructor(token: Token, prover: Prover, abilities: TokenAbilities) {
    this.#token = token;
    this.#prover = prover;
    this.#abilities = abilities;
  }

  async makePair({ id, bits, label, inToken }: Calls['makeWrappingPair']['takes']): Promise<{ publicKey: Uint8Array }> {
    const { publicTemplate, privateTemplate } = wrappingPairTemplates(id, bits, label, inToken);
    return await this.#token.use(async (session) => {
      const pair = await session.generatePair(CKM_RSA_PKCS_KEY_PAIR_GEN, publicTemplate, privateTemplate);
      return { publicKey: readPublicKey(session, pair.publicKey, 'RSA_2048') }; // of any RSA
    });
  }

  /** That there is no pair is believed of a token that is well, and that shows none a second time. */
  async dropPair(id: string): Promise<void> {
    if (await this.#dropShown(id, false)) return;
    await this.#token.check();
    await this.#dropShown(id, true);
  }

  /** @returns false when the private key, which only a token shows that is logged in, is not there; then nothing is done unless it is well. */
  async #dropShown(id: string, isWell: boolean): Promise<boolean> {
    return await this.#token.use((session) => {
      const [privateKeys = [], publicKeys = []] = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY].map((objectClass) => session.find(findById(id, objectClass), 2));
      if (privateKeys.length > 0 || isWell) for (const object of [...privateKeys, ...publicKeys]) session.destroy(object);
      return privateKeys.length > 0;
    });
  }

  /**
   * What is in the token already under the key's id stays, whoever's it is: what comes is a session copy that is compared with it.
   * @throws TokenFailure of kind `invalid`, `noWrappingKey`, `otherMaterial` when the key had another before, `inTheWay` when the token has another.
   */
  async unwrap(input: Calls['unwrap']['takes']): Promise<Calls['unwrap']['gives']> {
    const { key, wrappingId, inToken, wrapped, hasMaterial } = input;
    if (inToken) await this.#checkLength(input);
    return await this.#token.use(async (session) => {
      const wrappingKey = findWrappingKey(session, wrappingId);
      const [there, other] = session.find(findById(key.keyVersionId, classOf(key.keySpec)), 2);
      if (other) throw new TokenFailure({ kind: 'key', why: 'ambiguous' });
      if (there && hasMaterial) await this.#requireProven(session, there, input);
      const named = there ? undefined : key;
      const made = inToken
        ? await this.#keep(session, input, session.unwrap(oaepMechanism(input.algorithm), wrappingKey, wrapped, unwrappedAes(named)), there)
        : await this.#unwrapHere(session, wrappingKey, input, there);
      return { ...made, adopted: there !== undefined && !hasMaterial };
    }, true);
  }

  /** An import that fails must not cost the key that is there. */
  async #requireProven(session: Session, there: Handle, { key, previous }: Calls['unwrap']['takes']): Promise<void> {
    if (!previous || !(await this.#prover.holds(session, there, { ...key, ...previous }))) throw new TokenFailure({ kind: 'key', why: 'unproven' });
  }

  /** The object that is there is the key that came, made as the agent makes them. */
  async #requireSame(session: Session, there: Handle, key: NewKey, made: MadeKey): Promise<void> {
    const [sensitive, extractable] = session.attributes(there, CKA_SENSITIVE, CKA_EXTRACTABLE);
    const isSame = sensitive?.[0] === 1 && extractable?.[0] === 0 && (await this.#prover.holds(session, there, { ...key, ...made }));
    if (!isSame) throw new TokenFailure({ kind: 'inTheWay' });
  }

  /**
   * Unwraps a session copy and measures it: a token takes any length. A bad wrapping may be answered as if the token were sick,
   * so it is tried again, and counts as bad only when the token is well.
   */
  async #checkLength(input: Calls['unwrap']['takes']): Promise<void> {
    for (let left = 2; ; left -= 1) {
      const bits = await this.#measure(input).catch(async (error: unknown) => {
        if (!(error instanceof TokenFailure)) throw error;
        if (error.failure.kind === 'failed' || isUnusable(error)) throw invalid(); // understood, and no key: of a length that AES has not, for one
        if (error.failure.kind !== 'fault' || error.failure.call !== 'C_UnwrapKey') throw error;
        await this.#token.check();
        return 0;
      });
      if (bits === Number(input.key.keySpec.slice('AES_'.length))) return;
      if (bits > 0 || left === 1) throw invalid();
    }
  }

  async #measure({ wrappingId, algorithm, wrapped }: Calls['unwrap']['takes']): Promise<number> {
    return await this.#token.use(async (session) => {
      const copy = session.unwrap(oaepMechanism(algorithm), findWrappingKey(session, wrappingId), wrapped, measuredAes());
      const bytes = await measureAes(session, copy, () => session.generateKey(CKM_AES_KEY_GEN, throwawayAes(256, [CKA_WRAP])), CKM_AES_KEY_WRAP);
      session.destroy(copy);
      return bytes * 8;
    }, true);
  }

  async #unwrapHere(session: Session, wrappingKey: Handle, input: Calls['unwrap']['takes'], there: Handle | undefined): Promise<MadeKey> {
    const { key, algorithm, wrapped, previous } = input;
    const modulusBytes = session.attributes(wrappingKey, CKA_MODULUS)[0]?.length ?? 0;
    const isTwofold = algorithm === 'RSA_AES_KEY_WRAP_SHA_256';
    if (wrapped.length < modulusBytes || (!isTwofold && wrapped.length > modulusBytes)) throw invalid();
    const oaep = algorithm === 'RSAES_OAEP_SHA_1' ? algorithm : 'RSAES_OAEP_SHA_256';
    const first = await this.#decrypt(session, wrappingKey, oaep, wrapped.subarray(0, modulusBytes));
    const material = isTwofold ? unwrapKwp(first, wrapped.subarray(modulusBytes)) : first;
    try {
      if (!key.keySpec.startsWith('AES_')) return await this.#keepPrivateKey(session, key, readMaterial(key, material), { previous, there });
      if (material.length * 8 !== Number(key.keySpec.slice('AES_'.length))) throw invalid();
      return await this.#keep(session, input, session.create(createdAes(there ? undefined : key, material)), there);
    } finally {
      material.fill(0);
    }
  }

  async #keepPrivateKey(
    session: Session,
    key: NewKey,
    { jwk, publicKey }: ReturnType<typeof readMaterial>,
    { previous, there }: { previous: MadeKey | undefined; there: Handle | undefined },
  ): Promise<MadeKey> {
    if (previous?.publicKey && Buffer.compare(previous.publicKey, publicKey) !== 0) throw new TokenFailure({ kind: 'otherMaterial' });
    if (!there) return await this.#proveNew(session, session.create(createdPrivateKey(key, jwk)), key, publicKey);
    const made = previous ?? { proof: await this.#prover.make(session, there, key), publicKey };
    await this.#requireSame(session, there, key, made);
    return made;
  }

  async #decrypt(session: Session, wrappingKey: Handle, oaep: EncryptionAlgorithm, wrapped: Uint8Array): Promise<Uint8Array> {
    if (this.#abilities.oaep[oaep] === 'token') return await session.decrypt(oaepMechanism(oaep), wrappingKey, wrapped);
    const modulus = session.attributes(wrappingKey, CKA_MODULUS)[0] ?? Buffer.alloc(0);
    if (Buffer.compare(modulus, wrapped) <= 0) throw invalid(); // a number above the modulus does not open
    const message = removeOaep(oaep, await session.decrypt(rawRsa, wrappingKey, wrapped));
    if (!message) throw invalid();
    return message;
  }

  /** Proves an AES key that came, or takes it out again: when the key had other material before, and when its object is there already. */
  async #keep(session: Session, { key, previous }: Calls['unwrap']['takes'], handle: Handle, there: Handle | undefined): Promise<MadeKey> {
    if (!there && !previous) return await this.#proveNew(session, handle, key);
    const isSame = !previous || (await this.#prover.holds(session, handle, { ...key, proof: previous.proof }));
    const made = previous ?? { proof: await this.#prover.make(session, handle, key) };
    if (there || !isSame) session.destroy(handle);
    if (!isSame) throw new TokenFailure({ kind: 'otherMaterial' });
    if (there) await this.#requireSame(session, there, key, made);
    return made;
  }

  /** A key that the token took and cannot use is none: SoftHSM takes 31 bytes for an AES key, and a private key beside another's public one. */
  async #proveNew(session: Session, handle: Handle, key: NewKey, publicKey?: Uint8Array): Promise<MadeKey> {
    const made = await this.#prover.makeProven(session, [handle], key, publicKey).catch((error: unknown) => {
      if (isUnusable(error)) throw invalid(); // it was taken out already
      if (error instanceof TokenFailure && error.failure.kind === 'failed') return undefined;
      throw error;
    });
    if (made) return made;
    session.destroy(handle);
    throw invalid();
  }
}

/** Whether a mechanism was refused that the token was seen to do, when it was tried out, with keys that are good: SoftHSM says so of a key of 31 bytes. */
const isUnusable = (error: unknown): boolean => error instanceof TokenFailure && error.failure.kind === 'unsupported' && error.failure.call !== 'C_UnwrapKey';

function findWrappingKey(session: Session, id: string): Handle {
  const [found] = session.find(findById(id, CKO_PRIVATE_KEY), 1);
  if (!found) throw new TokenFailure({ kind: 'noWrappingKey' });
  return found;
}
