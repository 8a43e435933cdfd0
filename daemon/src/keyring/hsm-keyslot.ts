import { AgentError, isAgentError } from '@kms-agent/protocol';
import { type Encrypter, isToken, type MaterialRef, type Provider, type TokenProvider } from '../providers/provider.ts';
import type { SealedByToken, TokenSealer } from '../vault/keyslots/hsm.ts';
import type { Keyring } from './keyring.ts';

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

/** Opens slots whose token can be reached without a person, or that a person has just logged in to. */
export function openingSealer(providers: readonly Provider[], only?: string): Pick<TokenSealer, 'open'> {
  return {
    open: async (keyslotId, sealed) => {
      const token = providers.filter(isToken).find(({ name }) => name === sealed.token);
      if (!token || (only !== undefined && only !== sealed.token)) return undefined;
      try {
        await token.ready();
        const input = { algorithm: sealed.algorithm as 'AES_GCM', ciphertext: fromBase64(sealed.sealed), paddingMode: 'NO_PADDING' } as const; // as it was sealed below
        return Buffer.from(await token.decrypt(refOf(keyslotId, sealed), sealed.iv === undefined ? input : { ...input, iv: fromBase64(sealed.iv) }));
      } catch (error) {
        if (only === undefined && isAgentError(error)) return undefined; // other slots may open; status says what the token is about
        throw error;
      }
    },
  };
}

/** Makes a slot in a token. The vault hears of the token's key before it is made, as of every key. */
export function makingSealer(keyring: Keyring, token: Token): Pick<TokenSealer, 'seal'> {
  return {
    seal: async (keyslotId, wrappingKey) => {
      await token.ready();
      const algorithm = token.abilities('AES_256', 'ENCRYPT_DECRYPT')?.encryptionAlgorithms[0];
      if (!algorithm) throw new AgentError('ERR_UNSUPPORTED_ALGORITHM', { hint: `The token ${token.name} offers nothing for AES_256.` });
      keyring.commit({ intents: [{ id: keyslotId, provider: token.name, act: 'make', keyId: keyslotId, keySpec: 'AES_256' }] });
      const { material } = await token.generate({ keyId: keyslotId, keyVersionId: keyslotId, keySpec: 'AES_256', keyUsage: 'ENCRYPT_DECRYPT' });
      const ref = { keyVersionId: keyslotId, keySpec: 'AES_256', material } as const;
      const padding = algorithm === 'AES_GCM' ? {} : { paddingMode: 'NO_PADDING' as const };
      const { ciphertext, iv } = await token.encrypt(ref, { algorithm, plaintext: wrappingKey, ...padding });
      return { token: token.name, material: base64(material), algorithm, sealed: base64(ciphertext), ...(iv ? { iv: base64(iv) } : {}) };
    },
  };
}
