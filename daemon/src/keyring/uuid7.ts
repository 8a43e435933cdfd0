import { randomBytes } from 'node:crypto';

let lastMs = 0;
let sequence = 0;

/**
 * Makes a UUIDv7 (RFC 9562 section 5.7) in lower case. Ids of one process sort in the order in which they were made,
 * also within a millisecond and when the clock goes back: rand_a is a counter (method 1 of section 6.2).
 */
export function makeUuid7(nowMs: number): string {
  if (nowMs > lastMs) {
    lastMs = nowMs;
    sequence = 0;
  } else {
    sequence += 1;
    if (sequence > 0xfff) {
      lastMs += 1;
      sequence = 0;
    }
  }
  const bytes = randomBytes(16);
  bytes.writeUIntBE(lastMs, 0, 6);
  bytes.writeUInt16BE(0x7000 | sequence, 6);
  bytes.writeUInt8(0x80 | (bytes.readUInt8(8) & 0x3f), 8);
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
