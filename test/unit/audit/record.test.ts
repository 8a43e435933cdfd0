import { expect, test } from 'vitest';
import { decodeRecord, encodeRecord, noHash } from '../../../daemon/src/audit/record.ts';
import { verifyLines } from '../../../daemon/src/audit/verify.ts';
import { startKey } from '../../kit/audit.ts';

const record = {
  seq: 1,
  time: '2030-01-01T00:00:00.000Z',
  operation: 'checkpoint',
  outcome: 'ok',
  number: 0,
  mac: noHash,
  vaultRevision: '1',
  previous: noHash,
} as const;

test.each(['é\u2028\ufffd😀\u007f', 'é', '\u007f', '\u0080'])('encodeRecord: a line is ASCII and is read as it was written, with %j', (part) => {
  const foreign = { ...record, caller: { uid: 0, gid: 0, exe: `/opt/${part}` } };
  const line = encodeRecord(foreign);
  expect(line).toMatch(/^[\x20-\x7e]*$/);
  expect(decodeRecord(line)).toEqual(foreign);
});

test('decodeRecord: a byte that is not ASCII is damage', () => {
  const line = encodeRecord({ ...record, caller: { uid: 0, gid: 0, exe: '/opt/é' } });
  expect(decodeRecord(line.replace('\\u00e9', 'é'))).toBeUndefined();
});

test.each([
  ['seq', [0, -1, 1.5, 2 ** 53, '1', null]],
  ['previous', ['', 'abc', 'A'.repeat(64), null]],
  ['outcome', [1, null]],
  ['vaultRevision', ['-1', 'abc', '', '12345678901234567890', 1]],
  ['number', [-1, 1.5, '0', null]],
  ['mac', ['', 1]],
  ['requestId', [1, {}]],
  ['keyId', [1, null, []]],
  ['caller', [null, 'root', {}, { uid: -1, gid: 0 }, { uid: 0, gid: 0, unit: 1 }]],
  ['detail', [null, 'x', { a: {} }, { a: null }]],
] as const)('decodeRecord: a line with another %s is no record', (name, values) => {
  expect(decodeRecord(encodeRecord(record))).toEqual(record);
  for (const value of values) expect(decodeRecord(JSON.stringify({ ...record, [name]: value })), JSON.stringify(value)).toBeUndefined();
});

test('verify: a checkpoint of a number that nobody can reach proves nothing, and the check ends', () => {
  const line = encodeRecord({ ...record, number: Number.MAX_SAFE_INTEGER });
  expect(verifyLines([{ file: 'x', line, record: decodeRecord(line) }], { startKey })).toMatchObject({ records: 1, checkpoints: 0 });
});

test('verify: a record of a number below 1 was changed', () => {
  const line = JSON.stringify({ ...record, seq: -1 });
  expect(verifyLines([{ file: 'x', line, record: decodeRecord(line) }], { startKey })).toMatchObject({ ok: false, finding: { what: 'changed' } });
});
