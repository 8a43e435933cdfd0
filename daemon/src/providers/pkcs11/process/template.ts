import type { KeySpec, KeyUsage } from '@kms-agent/protocol';
import type { NewKey } from '../messages.ts';
import {
  CKA_CLASS,
  CKA_COEFFICIENT,
  CKA_DECRYPT,
  CKA_DERIVE,
  CKA_EC_PARAMS,
  CKA_ENCRYPT,
  CKA_EXPONENT_1,
  CKA_EXPONENT_2,
  CKA_EXTRACTABLE,
  CKA_ID,
  CKA_KEY_TYPE,
  CKA_LABEL,
  CKA_MODULUS,
  CKA_MODULUS_BITS,
  CKA_PRIME_1,
  CKA_PRIME_2,
  CKA_PRIVATE,
  CKA_PRIVATE_EXPONENT,
  CKA_PUBLIC_EXPONENT,
  CKA_SENSITIVE,
  CKA_SIGN,
  CKA_TOKEN,
  CKA_UNWRAP,
  CKA_VALUE,
  CKA_VALUE_LEN,
  CKA_VERIFY,
  CKA_WRAP,
  CKK_AES,
  CKK_EC,
  CKK_RSA,
  CKO_PRIVATE_KEY,
  CKO_SECRET_KEY,
} from './cryptoki.ts';
import { curveParams } from './mechanism.ts';
import type { Template } from './pkcs11js.ts';

/** 65537, big-endian. */
const publicExponent = Buffer.from([1, 0, 1]);

const bitsOf = (keySpec: KeySpec): number => Number(keySpec.slice(keySpec.indexOf('_') + 1));

/** CKA_ID: the 16 bytes of a UUID. */
export const idBytes = (id: string): Buffer => Buffer.from(id.replaceAll('-', ''), 'hex');

/** The UUID that a CKA_ID of 16 bytes is. */
export function formatId(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export const classOf = (keySpec: KeySpec): number => (keySpec.startsWith('AES_') ? CKO_SECRET_KEY : CKO_PRIVATE_KEY);

/** What finds an object of ours. */
export const findById = (id: string, objectClass: number): Template => [
  { type: CKA_CLASS, value: objectClass },
  { type: CKA_ID, value: idBytes(id) },
];

type Uses = ReadonlySet<number>;
const allUses = [CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE];
const publicUses = [CKA_ENCRYPT, CKA_VERIFY, CKA_WRAP];

const flags = (possible: readonly number[], uses: Uses): Template => possible.map((type) => ({ type, value: uses.has(type) }));

/** What says who an object is: throw-away ones are session objects without a name. */
function identity(named: { id: string; label: string } | undefined): Template {
  if (!named) return [{ type: CKA_TOKEN, value: false }];
  return [
    { type: CKA_TOKEN, value: true },
    { type: CKA_ID, value: idBytes(named.id) },
    { type: CKA_LABEL, value: named.label },
  ];
}

const secretive: Template = [
  { type: CKA_PRIVATE, value: true },
  { type: CKA_SENSITIVE, value: true },
  { type: CKA_EXTRACTABLE, value: false },
];

/** Exactly the uses that a key is for. */
const usesOf = (keyUsage: KeyUsage): Uses => new Set(keyUsage === 'SIGN_VERIFY' ? [CKA_SIGN, CKA_VERIFY] : [CKA_ENCRYPT, CKA_DECRYPT]);

const name = ({ keyVersionId, label }: NewKey): { id: string; label: string } => ({ id: keyVersionId, label });

const privateUses = allUses.filter((use) => !publicUses.includes(use));

function secretTemplate(uses: Uses, named?: { id: string; label: string }): Template {
  return [...identity(named), ...secretive, ...flags(allUses, uses)];
}

export function aesTemplate(key: NewKey): Template {
  return [...secretTemplate(usesOf('ENCRYPT_DECRYPT'), name(key)), { type: CKA_VALUE_LEN, value: bitsOf(key.keySpec) / 8 }];
}

/** A session key that is gone when it was used. */
export const throwawayAes = (bits = 256, uses: readonly number[] = [CKA_ENCRYPT, CKA_DECRYPT]): Template => [
  ...secretTemplate(new Set(uses)),
  { type: CKA_VALUE_LEN, value: bits / 8 },
];

/** Both templates of a pair. */
export interface PairTemplates {
  readonly publicTemplate: Template;
  readonly privateTemplate: Template;
}

function pairTemplates(uses: Uses, parameters: Template, named?: { id: string; label: string }): PairTemplates {
  return {
    publicTemplate: [...identity(named), { type: CKA_PRIVATE, value: false }, ...flags(publicUses, uses), ...parameters],
    privateTemplate: [...identity(named), ...secretive, ...flags(privateUses, uses)],
  };
}

const rsaParameters = (bits: number): Template => [
  { type: CKA_MODULUS_BITS, value: bits },
  { type: CKA_PUBLIC_EXPONENT, value: publicExponent },
];

export function keyPairTemplates(key: NewKey): PairTemplates {
  const curve = curveParams[key.keySpec];
  return pairTemplates(usesOf(key.keyUsage), curve ? [{ type: CKA_EC_PARAMS, value: curve }] : rsaParameters(bitsOf(key.keySpec)), name(key));
}

/** A pair that takes in material: it unwraps inside the token, or decrypts for the helper, never both. */
export function wrappingPairTemplates(id: string, bits: number, label: string, inToken: boolean): PairTemplates {
  return pairTemplates(new Set(inToken ? [CKA_WRAP, CKA_UNWRAP] : [CKA_ENCRYPT, CKA_DECRYPT]), rsaParameters(bits), { id, label });
}

/** A pair of session objects. */
export function throwawayPair(keySpec: KeySpec, uses: readonly number[]): PairTemplates {
  const curve = curveParams[keySpec];
  return pairTemplates(new Set(uses), curve ? [{ type: CKA_EC_PARAMS, value: curve }] : rsaParameters(bitsOf(keySpec)));
}

const aesKind: Template = [
  { type: CKA_CLASS, value: CKO_SECRET_KEY },
  { type: CKA_KEY_TYPE, value: CKK_AES },
];

/** For C_UnwrapKey of an AES key, which says its length itself. Without a key it is a session object. */
export const unwrappedAes = (key: NewKey | undefined): Template => [...aesKind, ...secretTemplate(usesOf('ENCRYPT_DECRYPT'), key && name(key))];

/** A session copy that may leave the token wrapped under a key that never does: its length is measured so. */
export const measuredAes = (): Template => [
  ...aesKind,
  ...identity(undefined),
  { type: CKA_PRIVATE, value: true },
  { type: CKA_SENSITIVE, value: true },
  { type: CKA_EXTRACTABLE, value: true },
];

/** For C_CreateObject of an AES key that the helper unwrapped. */
export const createdAes = (key: NewKey | undefined, value: Uint8Array): Template => [...unwrappedAes(key), { type: CKA_VALUE, value: Buffer.from(value) }];

/** For C_CreateObject of a private key, from its numbers in base64url (RFC 7518 section 6). */
export function createdPrivateKey(key: NewKey, jwk: Record<string, string>): Template {
  const number = (type: number, field: string): Template[number] => ({ type, value: Buffer.from(jwk[field] ?? '', 'base64url') });
  const common: Template = [{ type: CKA_CLASS, value: CKO_PRIVATE_KEY }, ...identity(name(key)), ...secretive, ...flags(privateUses, usesOf(key.keyUsage))];
  const curve = curveParams[key.keySpec];
  if (curve) return [...common, { type: CKA_KEY_TYPE, value: CKK_EC }, { type: CKA_EC_PARAMS, value: curve }, number(CKA_VALUE, 'd')];
  const rsaNumbers: [number, string][] = [
    [CKA_MODULUS, 'n'],
    [CKA_PUBLIC_EXPONENT, 'e'],
    [CKA_PRIVATE_EXPONENT, 'd'],
    [CKA_PRIME_1, 'p'],
    [CKA_PRIME_2, 'q'],
    [CKA_EXPONENT_1, 'dp'],
    [CKA_EXPONENT_2, 'dq'],
    [CKA_COEFFICIENT, 'qi'],
  ];
  return [...common, { type: CKA_KEY_TYPE, value: CKK_RSA }, ...rsaNumbers.map(([type, field]) => number(type, field))];
}

/** All private and secret objects. */
export const everyKey = (objectClass: number): Template => [
  { type: CKA_CLASS, value: objectClass },
  { type: CKA_TOKEN, value: true },
];
