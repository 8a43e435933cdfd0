import { AgentError, isAgentError } from '@kms-agent/protocol';
import { type Encrypter, isToken, type MaterialRef, type Provider, type TokenProvider } from '../providers/provider.ts';
import type { SealedByToken, TokenSealer } from '../vault/keyslots/hsm.ts';
import { refuseAlgorithm } from './rules.ts';
import type { TokenWork } from './token-work.ts';

type Token = Provider & TokenProvider & Encrypter;

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const fromBase64 = (text: string): Buffer => Buffer.from(text, 'base64');

/** The key of a slot in its token: its id is the slot's. */
const refOf = (keyslotId: string, { material }: SealedByToken): MaterialRef => ({
  keyVersionId: keyslotId,
  keySpec: 'AES_256',
  material: fromBase64(material),
});

/** A token of the settings by its name. @throws AgentError `ERR_INVALID_PARAMS`. */
export function findToken(providers: readonly Provider[], name: string | undefined): Token {
  const tokens = providers.filter(isToken);
  const token = name === undefined && tokens.length === 1 ? tokens[0] : tokens.find((candidate) => candidate.name === name);
  if (token) return token;
  throw new AgentError('ERR_INVALID_PARAMS', { path: '/token', reason: name === undefined ? 'is required' : 'names no token of the settings' });
}

/** Serial number of the token that a slot was made in, which a locked vault knows too. */
export const serialIn = (slots: ReadonlyMap<string, SealedByToken>, token: string): string | undefined =>
  [...slots.values()].find((slot) => slot.token === token && slot.serial !== undefined)?.serial;

/** Opens slots whose token can be reached without a person, or that a person has just logged in to. */
export function openingSealer(providers: readonly Provider[], only?: string): Pick<TokenSealer, 'open'> {
  return {
    open: async (keyslotId, sealed) => {
      const token = providers.filter(isToken).find(({ name }) => name === sealed.token);
      if (!token || (only !== undefined && only !== sealed.token)) return undefined;
      try {
        await token.ready();
        const input = { algorithm: sealed.algorithm as 'AES_GCM', ciphertext: fromBase64(sealed.sealed), paddingMode: 'NO_PADDING' } as const; // as it was sealed below
        const key = await token.decrypt(refOf(keyslotId, sealed), sealed.iv === undefined ? input : { ...input, iv: fromBase64(sealed.iv) });
        return Buffer.from(key.buffer, key.byteOffset, key.byteLength); // no copy: whoever gets it overwrites it
      } catch (error) {
        if (only === undefined && isAgentError(error)) return undefined; // other slots may open; status says what the token is about
        throw error;
      }
    },
  };
}

/** Makes a slot in a token. The vault hears of the token's key before it is made, as of every key; a slot that is not written takes its key with it. */
export class KeyslotMaking implements Pick<TokenSealer, 'seal'> {
  readonly #tokenWork: TokenWork;
  readonly #token: Token;
  #made: (MaterialRef & { readonly keyId: string }) | undefined;
  #release: () => void = () => undefined;

  constructor(tokenWork: TokenWork, token: Token) {
    this.#tokenWork = tokenWork;
    this.#token = token;
  }

  async seal(keyslotId: string, wrappingKey: Uint8Array): Promise<SealedByToken> {
    const token = this.#token;
    await token.ready();
    const algorithm = token.abilities('AES_256', 'ENCRYPT_DECRYPT')?.encryptionAlgorithms[0];
    if (!algorithm) throw refuseAlgorithm(token, { keySpec: 'AES_256', wanted: 'key' }, `The token ${token.name} offers nothing for AES_256.`);
    this.#release = this.#tokenWork.hold(keyslotId); // until the slot is written, which is later than a key would be
    const named = { keyId: keyslotId, keyVersionId: keyslotId, keySpec: 'AES_256' } as const;
    const { material } = await this.#tokenWork.making(token, named, () => token.generate({ ...named, keyUsage: 'ENCRYPT_DECRYPT' }));
    const made = { ...named, material };
    this.#made = made;
    const padding = algorithm === 'AES_GCM' ? {} : { paddingMode: 'NO_PADDING' as const };
    const { ciphertext, iv } = await token.encrypt(made, { algorithm, plaintext: wrappingKey, ...padding });
    const { serial } = token.status().hsm ?? {};
    const known = { ...(serial === undefined ? {} : { serial }), ...(iv ? { iv: base64(iv) } : {}) };
    return { token: token.name, material: base64(material), algorithm, sealed: base64(ciphertext), ...known };
  }

  /** Runs what writes the slot. */
  async run<T>(write: (sealer: Pick<TokenSealer, 'seal'>) => Promise<T>): Promise<T> {
    try {
      const written = await this.#takingBack(() => write(this));
      if (this.#made) this.#tokenWork.fulfil(this.#made.keyVersionId);
      return written;
    } finally {
      this.#release();
    }
  }

  async #takingBack<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (error) {
      const fail = (): never => {
        throw error;
      };
      return this.#made ? await this.#tokenWork.keeping(this.#token, this.#made, fail) : fail();
    }
  }
}
