import type { ImportWrappingAlgorithm } from '@kms-agent/protocol';
import type { NewMaterial, UnwrapInput, UnwrappedMaterial, WrappingPair, WrappingPairInput } from '../provider.ts';
import type { KeyCalls } from './key-calls.ts';
import type { TokenLink } from './link.ts';
import { toNewKey } from './objects.ts';
import { decodePrevious, encodePrevious } from './previous.ts';

/** A pair's id, and who unwraps with it: that is fixed when it is made, whatever the token is seen to do later. */
const encodePair = (id: string, inToken: boolean): Uint8Array => Buffer.from(`${id} ${inToken ? 'token' : 'helper'}`);

/** @returns `inToken` undefined for a pair of a time when that was not written down. */
function decodePair(state: Uint8Array): { id: string; inToken: boolean | undefined } {
  const [id = '', unwrapper] = Buffer.from(state).toString().split(' ');
  return { id, inToken: unwrapper === undefined ? undefined : unwrapper === 'token' };
}

/** Takes material into a token: unwrapped inside where it can, in the helper where not. */
export class TokenImport {
  readonly #link: TokenLink;
  readonly #keys: KeyCalls;

  constructor(link: TokenLink, keys: KeyCalls) {
    this.#link = link;
    this.#keys = keys;
  }

  async makePair({ id, keySpec, algorithm, label }: WrappingPairInput): Promise<WrappingPair> {
    const params = { id, bits: Number(keySpec.slice('RSA_'.length)), label, inToken: this.#unwrapsInToken(algorithm) };
    const { publicKey } = await this.#keys.run(id, () => this.#link.call('makeWrappingPair', params));
    return { publicKey, state: encodePair(id, params.inToken) };
  }

  async dropPair(id: string): Promise<void> {
    await this.#keys.run(id, () => this.#link.call('dropWrappingPair', { id }));
  }

  async unwrap(made: NewMaterial, { algorithm, state, wrapped, previous, hasMaterial }: UnwrapInput): Promise<UnwrappedMaterial> {
    const { id, inToken = this.#unwrapsInToken(algorithm) } = decodePair(state);
    const params = {
      key: toNewKey(made),
      wrappingId: id,
      algorithm,
      wrapped,
      inToken,
      hasMaterial,
      ...(previous ? { previous: decodePrevious(previous) } : {}),
    };
    const { proof, publicKey, adopted } = await this.#keys.run(made.keyVersionId, () => this.#link.call('unwrap', params), 'ERR_INVALID_KEY_MATERIAL');
    if (adopted) this.#keys.note(`had the imported key ${made.keyVersionId} already; it is used as it is`);
    const material = { material: proof, ...(publicKey ? { publicKey } : {}) };
    return { ...material, unwrappedIn: inToken ? 'TOKEN' : 'AGENT', checkValue: encodePrevious(material) };
  }

  #unwrapsInToken(algorithm: ImportWrappingAlgorithm): boolean {
    return this.#link.connection.abilities?.unwraps.includes(algorithm) ?? false;
  }
}
