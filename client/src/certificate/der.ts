/** Writes the few types of DER (ITU-T X.690) that a certificate request has. */

function encodeLength(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  const hex = length.toString(16);
  const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex');
  return Buffer.concat([Buffer.from([0x80 | bytes.length]), bytes]);
}

function encode(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([Buffer.from([tag]), encodeLength(content.length), content]);
}

export const sequence = (...members: readonly Uint8Array[]): Buffer => encode(0x30, ...members);
export const setOf = (member: Uint8Array): Buffer => encode(0x31, member);
export const smallInteger = (value: 0): Buffer => encode(0x02, Buffer.from([value]));
export const nothing = (): Buffer => encode(0x05);
export const octetString = (bytes: Uint8Array): Buffer => encode(0x04, bytes);
/** Whole bytes: no unused bits. */
export const bitString = (bytes: Uint8Array): Buffer => encode(0x03, Buffer.from([0]), bytes);
export const utf8String = (value: string): Buffer => encode(0x0c, Buffer.from(value));
export const printableString = (value: string): Buffer => encode(0x13, Buffer.from(value, 'latin1'));
export const ia5String = (value: string): Buffer => encode(0x16, Buffer.from(value, 'latin1'));
/** `[number]`, constructed. */
export const contextSet = (number: number, ...members: readonly Uint8Array[]): Buffer => encode(0xa0 | number, ...members);
/** `[number] IMPLICIT`, of a type that is primitive. */
export const contextBytes = (number: number, bytes: Uint8Array): Buffer => encode(0x80 | number, bytes);

/** Seven bits a byte, the highest bit set in all but the last. */
function encodeArc(arc: number): number[] {
  const bytes = [arc & 0x7f];
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) bytes.unshift(0x80 | (rest & 0x7f));
  return bytes;
}

/** An object identifier, written with dots. */
export function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  return encode(0x06, Buffer.from([first * 40 + second, ...rest].flatMap(encodeArc)));
}
