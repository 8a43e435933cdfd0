import { expect, test } from 'vitest';
import { decodePin, encodeChanges } from '../../../daemon/src/keyring/records.ts';

test.each(['12345678', '{"pin":"odd"}', 'öäü'])('the PIN of a token: %s is kept as its bytes, and read again', (text) => {
  const [change] = encodeChanges({ pins: [{ token: 'hsm', pin: Buffer.from(text) }] });
  if (!change || !('plaintext' in change)) throw new Error('there is no record');
  expect(change).toMatchObject({ kind: 'pin', id: 'hsm' });
  expect(Buffer.from(change.plaintext).subarray(1).toString()).toBe(text);
  expect(decodePin('hsm', change.plaintext)).toEqual({ token: 'hsm', pin: Buffer.from(text) });
});

test('the PIN of a token: the first records of this kind were JSON, and are read as well', () => {
  expect(decodePin('hsm', Buffer.from(JSON.stringify({ token: 'hsm', pin: '"quoted"' })))).toEqual({ token: 'hsm', pin: Buffer.from('"quoted"') });
});
