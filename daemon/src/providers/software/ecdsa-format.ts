/** Bytes of r and of s on a 256-bit curve. */
const numberBytes = 32;

/** ASN.1 DER SEQUENCE of two INTEGERs (RFC 3279 section 2.2.3), as OpenSSL just wrote it, to r ‖ s (IEEE P1363). */
export function derToP1363(der: Uint8Array): Uint8Array {
  const signature = new Uint8Array(2 * numberBytes);
  let offset = 2; // SEQUENCE and its one-byte length: at most 70
  for (const end of [numberBytes, 2 * numberBytes]) {
    const length = der[offset + 1] ?? 0;
    const number = der.subarray(offset + 2, offset + 2 + length);
    const significant = number.subarray(Math.max(0, number.length - numberBytes));
    signature.set(significant, end - significant.length);
    offset += 2 + length;
  }
  return signature;
}

function encodeInteger(number: Uint8Array): number[] {
  const first = number.findIndex((byte) => byte !== 0);
  const bytes = first === -1 ? [0] : [...number.subarray(first)];
  const content = (bytes[0] ?? 0) > 0x7f ? [0, ...bytes] : bytes;
  return [0x02, content.length, ...content];
}

/** r ‖ s to ASN.1 DER; undefined when it is not exactly 64 bytes. */
export function p1363ToDer(signature: Uint8Array): Uint8Array | undefined {
  if (signature.length !== 2 * numberBytes) return undefined;
  const content = [...encodeInteger(signature.subarray(0, numberBytes)), ...encodeInteger(signature.subarray(numberBytes))];
  return Uint8Array.from([0x30, content.length, ...content]);
}
