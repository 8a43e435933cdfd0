import { verify } from 'node:crypto';

const coordinateBytes = 32;
const padded = (number: Buffer): Buffer => Buffer.concat([Buffer.alloc(coordinateBytes), number]).subarray(-coordinateBytes);

/** A signature of P-256 as other agents give it: the numbers r and s, and the public point, uncompressed (SEC 1 section 2.3.3). */
export function ecdsaSignature(point: Buffer, r: Buffer, s: Buffer): { isValid(message: Buffer): boolean } {
  const key = { kty: 'EC', crv: 'P-256', x: point.subarray(1, 33).toString('base64url'), y: point.subarray(33, 65).toString('base64url') };
  const signature = Buffer.concat([padded(r), padded(s)]);
  return { isValid: (message) => verify('sha256', message, { key, format: 'jwk', dsaEncoding: 'ieee-p1363' }, signature) };
}
