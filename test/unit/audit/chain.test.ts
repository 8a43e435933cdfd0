import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { decodeState, encodeState } from '../../../daemon/src/audit/chain.ts';

test('encodeState and decodeState: JSON with the key in hex, as vaults have it', () => {
  const state = { key: randomBytes(32), number: 7, seq: 4711, hash: randomBytes(32).toString('hex') };
  const { key, ...rest } = state;
  const json = JSON.stringify({ key: key.toString('hex'), ...rest });
  expect(encodeState(state).toString()).toBe(json);
  expect(decodeState(Buffer.from(json))).toEqual(state);
});
