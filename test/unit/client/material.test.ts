import { constants, generateKeyPairSync, privateDecrypt, randomBytes } from 'node:crypto';
import type { AgentClient } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { parseExpiry } from '../../../client/src/cli/manage/expiry.ts';
import { wrapFile } from '../../../client/src/cli/manage/material.ts';
import { readMaterial, wrapMaterial } from '../../../client/src/cli/manage/wrapping.ts';
import { unwrapKwp } from '../../../daemon/src/providers/pkcs11/process/material.ts';

const wrapping = generateKeyPairSync('rsa', { modulusLength: 2048 });
const publicKey = wrapping.publicKey.export({ type: 'spki', format: 'pem' }).toString();

describe('parseExpiry', () => {
  test.each([
    ['2030-01-31', '2030-01-31T00:00:00.000Z'],
    ['2028-02-29', '2028-02-29T00:00:00.000Z'],
    ['2030-01-31T12:00:00Z', '2030-01-31T12:00:00.000Z'],
    ['2030-01-31T12:00:00.123456Z', '2030-01-31T12:00:00.123Z'],
    ['2030-01-31T23:30:00-01:00', '2030-02-01T00:30:00.000Z'],
    ['2030-01-31T12:00:00+05:30', '2030-01-31T06:30:00.000Z'],
  ])('%s is %s', (text, time) => {
    expect(parseExpiry(text)).toBe(time);
  });

  const wrong = [
    '2030-02-31',
    '2030-02-29',
    '2030-13-01',
    '2030-00-10',
    '2030-01-00',
    '12/31/2030',
    '2030',
    '2030-01',
    '2030-01-31T12:00',
    '2030-01-31T12:00:00',
  ];
  const stranger = [
    '2030-02-31T12:00:00Z',
    '2030-01-31T24:00:00Z',
    '2030-01-31T12:60:00Z',
    '2030-01-31T12:00:00+25:00',
    '2030-01-31 12:00:00Z',
    'tomorrow',
    '',
    ' 2030-01-31',
  ];
  test.each([...wrong, ...stranger])('%s is no time that somebody surely means', (text) => {
    expect(() => parseExpiry(text)).toThrow(/^--expires takes a date such as 2030-01-31 \(its midnight in UTC\) or a time with a zone/);
  });
});

describe('readMaterial', () => {
  const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey;
  const der = ec.export({ type: 'pkcs8', format: 'der' });

  test('a private key: PKCS#8 DER, the same from each kind of PEM', () => {
    expect(readMaterial(der, 'EC_P256')).toEqual(der);
    for (const type of ['pkcs8', 'sec1'] as const) expect(readMaterial(Buffer.from(ec.export({ type, format: 'pem' })), 'EC_P256')).toEqual(der);
  });

  test.each([
    ['AES_256', 5000, 'AES_256 takes 32 bytes; there are 5000'],
    ['AES_256', 33, 'AES_256 takes 32 bytes; there are 33, perhaps with a line feed at the end'],
    ['AES_128', 32, 'AES_128 takes 16 bytes; there are 32'],
    ['EC_P256', 32, 'EC_P256 takes a private key without a passphrase, as PKCS#8 DER or as PEM; the file is none'],
  ] as const)('%s of %i bytes: says what is right', (keySpec, length, message) => {
    expect(() => readMaterial(randomBytes(length), keySpec)).toThrow(message);
  });

  test('a private key of another kind, or with a passphrase: refused', () => {
    expect(() => readMaterial(der, 'EC_P256K')).toThrow('EC_P256K takes a private key of its kind; this one is EC_P256');
    expect(() => readMaterial(der, 'RSA_2048')).toThrow('this one is EC_P256');
    const closed = Buffer.from(ec.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' }));
    expect(() => readMaterial(closed, 'EC_P256')).toThrow('without a passphrase');
  });
});

test('wrapMaterial: RSA_AES_KEY_WRAP_SHA_256 is RSAES-OAEP of an AES key, then the material in AES-KWP under it', () => {
  const material = randomBytes(1219);
  const wrapped = wrapMaterial(publicKey, 'RSA_AES_KEY_WRAP_SHA_256', material);
  const aesKey = privateDecrypt({ key: wrapping.privateKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }, wrapped.subarray(0, 256));
  expect(aesKey).toHaveLength(32);
  expect(unwrapKwp(aesKey, wrapped.subarray(256))).toEqual(material);
});

test.each([
  ['wrapping fails', 'AES_256', 'no public key'],
  ['the file is not right', 'AES_128', publicKey],
  ['all goes well', 'AES_256', publicKey],
] as const)('wrapFile: what was read is overwritten when %s', async (_when, keySpec, pem) => {
  const client = { getParametersForImport: async () => ({ publicKey: pem, importToken: new Uint8Array(), wrappingAlgorithm: 'RSAES_OAEP_SHA_256' }) };
  const file = randomBytes(32);
  await wrapFile(client as unknown as AgentClient, { keyId: 'x', keySpec }, file).catch(() => undefined); // what it needs of a client
  expect(file).toEqual(Buffer.alloc(32));
});
