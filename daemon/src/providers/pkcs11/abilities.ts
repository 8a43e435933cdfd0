import type { ImportWrappingAlgorithm, KeySpec, KeyUsage } from '@kms-agent/protocol';
import type { Abilities } from '../provider.ts';
import type { TokenAbilities } from './messages.ts';

const none: Abilities = { encryptionAlgorithms: [], signingAlgorithms: [] };
const oaepAlgorithms = ['RSAES_OAEP_SHA_256', 'RSAES_OAEP_SHA_1'] as const;

function orNothing(abilities: Abilities): Abilities | undefined {
  return abilities.encryptionAlgorithms.length + abilities.signingAlgorithms.length > 0 ? abilities : undefined;
}

/** What a token that was tried out offers for a spec and usage; undefined for nothing. */
export function offersOf(token: TokenAbilities, keySpec: KeySpec, keyUsage: KeyUsage): Abilities | undefined {
  const bits = Number(keySpec.slice(keySpec.indexOf('_') + 1));
  const isSigning = keyUsage === 'SIGN_VERIFY';
  if (keySpec.startsWith('AES_')) return isSigning || !token.aesBits.includes(bits) ? undefined : orNothing({ ...none, encryptionAlgorithms: token.aes });
  if (keySpec.startsWith('EC_')) return isSigning && token.curves.includes(keySpec) ? { ...none, signingAlgorithms: ['ECDSA_SHA_256'] } : undefined;
  if (!token.rsaBits.includes(bits)) return undefined;
  return orNothing(
    isSigning ? { ...none, signingAlgorithms: token.rsaSigning } : { ...none, encryptionAlgorithms: oaepAlgorithms.filter((oaep) => token.oaep[oaep]) },
  );
}

/** Ways to wrap material of a spec for a token, best first: what it unwraps inside comes before what the helper must. */
export function importsOf(token: TokenAbilities, keySpec: KeySpec): readonly ImportWrappingAlgorithm[] {
  const here = oaepAlgorithms.filter((oaep) => token.oaep[oaep]);
  if (keySpec.startsWith('AES_')) return [...new Set([...token.unwraps, ...here])];
  return token.oaep.RSAES_OAEP_SHA_256 ? ['RSA_AES_KEY_WRAP_SHA_256'] : [];
}
