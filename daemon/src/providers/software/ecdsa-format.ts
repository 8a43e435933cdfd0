/** Bytes of r and of s on a 256-bit curve. */
const numberBytes = 32;
/** Bytes of tag and length, of a SEQUENCE and of an INTEGER. */
const headBytes = 2;

/** ASN.1 DER SEQUENCE of two INTEGERs (RFC 3279 section 2.2.3), as OpenSSL just wrote it, to r ‖ s (IEEE P1363). */
export function derToP1363(der: Uint8Array): Uint8Array {
  const signature = new Uint8Array(2 * numberBytes);
  let offset = headBytes; // of the SEQUENCE, whose length is at most 70
  for (const end of [numberBytes, 2 * numberBytes]) {
    const length = der[offset + 1] ?? 0;
    const number = der.subarray(offset + headBytes, offset + headBytes + length);
    const significant = number.subarray(Math.max(0, number.length - numberBytes));
    signature.set(significant, end - significant.length);
    offset += headBytes + length;
  }
  return signature;
}

/** An INTEGER of DER: without zeros in front, but for one where the first bit would be a sign. @returns where it ends. */
function writeInteger(der: Uint8Array, offset: number, number: Uint8Array): number {
  let first = 0;
  while (first < number.length - 1 && number[first] === 0) first += 1;
  const signBytes = (number[first] ?? 0) > 0x7f ? 1 : 0;
  const start = offset + headBytes + signBytes;
  der.set([0x02, number.length - first + signBytes], offset);
  der.set(number.subarray(first), start);
  return start + number.length - first;
}

/** r ‖ s to ASN.1 DER; undefined when it is not exactly 64 bytes. */
export function p1363ToDer(signature: Uint8Array): Uint8Array | undefined {
  if (signature.length !== 2 * numberBytes) return undefined;
  const der = new Uint8Array(headBytes + 2 * (headBytes + 1 + numberBytes));
  const end = writeInteger(der, writeInteger(der, headBytes, signature.subarray(0, numberBytes)), signature.subarray(numberBytes));
  der.set([0x30, end - headBytes]);
  return der.subarray(0, end);
}
