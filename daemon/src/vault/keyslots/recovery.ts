import { createHash, randomBytes } from 'node:crypto';

/** Crockford's base32: no I, L, O, U, so that a printed code survives handwriting. */
const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const codeBytes = 32;
const checksumChars = 4;
const codeChars = Math.ceil((codeBytes * 8) / 5);

function encodeBase32(bytes: Uint8Array, length: number): string {
  let value = BigInt(`0x${Buffer.from(bytes).toString('hex')}`) << BigInt(length * 5 - bytes.length * 8);
  let text = '';
  for (let index = 0; index < length; index += 1) {
    text = `${alphabet[Number(value & 31n)]}${text}`;
    value >>= 5n;
  }
  return text;
}

/** 20 bits of SHA-256 over the secret: a mistyped code is noticed before anything is tried. */
function checksum(secret: Uint8Array): string {
  return encodeBase32(createHash('sha256').update('kms-agent recovery code').update(secret).digest(), codeChars).slice(0, checksumChars);
}

/** A new 256-bit recovery code: its secret, and the text to print, 14 groups of 4 characters. */
export function makeRecoveryCode(): { secret: Buffer; text: string } {
  const secret = randomBytes(codeBytes);
  const characters = encodeBase32(secret, codeChars) + checksum(secret);
  return { secret, text: characters.match(/.{4}/g)?.join('-') ?? characters };
}

/** Reads a code as a person typed it: any case, spaces or dashes, O for 0, I or L for 1. Undefined when it is none or mistyped. */
export function parseRecoveryCode(text: string): Buffer | undefined {
  const characters = text.toUpperCase().replace(/[\s-]/g, '').replaceAll('O', '0').replace(/[IL]/g, '1');
  if (characters.length !== codeChars + checksumChars || !/^[0-9A-HJKMNP-TV-Z]+$/.test(characters)) return undefined;
  const body = Array.from(characters.slice(0, codeChars)).reduce((value, character) => (value << 5n) | BigInt(alphabet.indexOf(character)), 0n);
  const value = body >> BigInt(codeChars * 5 - codeBytes * 8);
  const secret = Buffer.from(value.toString(16).padStart(2 * codeBytes, '0'), 'hex');
  return checksum(secret) === characters.slice(codeChars) ? secret : undefined;
}
