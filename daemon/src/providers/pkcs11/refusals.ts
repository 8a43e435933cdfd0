import type { EncryptionAlgorithm, KeySpec, SigningAlgorithm } from '@kms-agent/protocol';
import type { Refused } from '../provider.ts';
import type { TokenAbilities } from './messages.ts';

/** Which mechanism (PKCS#11 v2.40) an algorithm is to a token. */
const mechanismOf: Readonly<Record<EncryptionAlgorithm | SigningAlgorithm, string>> = {
  AES_GCM: 'CKM_AES_GCM',
  AES_CBC: 'CKM_AES_CBC',
  AES_ECB: 'CKM_AES_ECB',
  RSAES_OAEP_SHA_256: 'CKM_RSA_PKCS_OAEP',
  RSAES_OAEP_SHA_1: 'CKM_RSA_PKCS_OAEP',
  RSA_PSS_SHA_256: 'CKM_RSA_PKCS_PSS',
  RSA_PKCS1_SHA_256: 'CKM_RSA_PKCS',
  ECDSA_SHA_256: 'CKM_ECDSA',
};

const familyOf = (name: string): string | undefined => /^(?:AES|RSA|EC)/.exec(name)?.[0];
const bitsOf = (keySpec: KeySpec): number => Number(keySpec.slice(keySpec.indexOf('_') + 1));

/** What a key of a spec needs and the token does not do: it makes none, or does nothing with it. */
function missingFor(keySpec: KeySpec, { aesBits, rsaBits }: TokenAbilities): string[] {
  const family = familyOf(keySpec);
  if (family === 'AES' && !aesBits.includes(bitsOf(keySpec))) return ['CKM_AES_KEY_GEN'];
  if (family === 'RSA' && !rsaBits.includes(bitsOf(keySpec))) return ['CKM_RSA_PKCS_KEY_PAIR_GEN'];
  const algorithms = Object.entries(mechanismOf).filter(([algorithm]) => familyOf(algorithm) === family);
  return [...new Set(algorithms.map(([, mechanism]) => mechanism))];
}

function missing({ keySpec, wanted }: Refused, abilities: TokenAbilities): string[] {
  if (wanted === 'key') return missingFor(keySpec, abilities);
  if (wanted === 'import') return ['CKM_RSA_PKCS_OAEP'];
  return familyOf(wanted) === familyOf(keySpec) ? [mechanismOf[wanted]] : []; // else no token would do it
}

/** Says in the log, once for each, for want of which mechanism a token's requests are refused. Callers hear ERR_UNSUPPORTED_ALGORITHM, which names none. */
export class Refusals {
  readonly #token: string;
  readonly #onNote: (note: string, level: 'warn' | 'info') => void;
  readonly #said = new Set<string>();

  constructor(token: string, onNote: (note: string, level: 'warn' | 'info') => void) {
    this.#token = token;
    this.#onNote = onNote;
  }

  /** The token refused a mechanism in a call. @param why - what it answered. */
  note(mechanism: string, why: string): void {
    this.#say(mechanism, why);
  }

  /** A request was refused because of what the token was seen to do. What no token would do with such a key is not its fault. */
  noteRefused(refused: Refused, abilities: TokenAbilities): void {
    const { keySpec, wanted } = refused;
    const words = [wanted, keySpec, keySpec.replace('_', '-')];
    const tried = abilities.refused.filter((line) => words.some((word) => line.includes(word)));
    const why = tried.length > 0 ? tried.join('; ') : 'it was not seen to';
    for (const mechanism of missing(refused, abilities)) this.#say(`${mechanism} for ${keySpec}`, why);
  }

  #say(what: string, why: string): void {
    if (this.#said.has(what)) return;
    this.#said.add(what);
    this.#onNote(`a request was refused: the token ${this.#token} does not do ${what}: ${why}`, 'warn');
  }
}
