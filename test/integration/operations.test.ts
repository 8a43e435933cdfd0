import { execFileSync } from 'node:child_process';
import { constants, createHash, createPublicKey, publicEncrypt, verify as verifyHere } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { type AgentClient, aad, type EncryptionAlgorithm, type KeyMetadata, type SigningAlgorithm, utf8 } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TempFolder, TestAgent } from '../kit/agent.ts';

const message = utf8('what is signed');
const digest = new Uint8Array(createHash('sha256').update(message).digest());

let agent: TestAgent;
let kms: AgentClient;
beforeAll(async () => {
  agent = await TestAgent.dev();
  kms = await agent.client();
});
afterAll(() => agent.end());

describe('encryption', () => {
  test('encrypt: its answer, completed with the aad, is a request of decrypt and of advanceDecrypt', async () => {
    const bound = aad({ table: 'users', id: '7' });
    const sealed = await kms.encrypt({ plaintext: message, aad: bound });
    expect((await kms.decrypt({ ...sealed, aad: bound })).plaintext).toEqual(message);
    expect((await kms.advanceDecrypt({ ...sealed, aad: bound })).plaintext).toEqual(message);
    expect(sealed).toMatchObject({ algorithm: 'AES_GCM' });
    expect(sealed.iv).toHaveLength(12);
  });

  test('advanceEncrypt: its answer, completed with the aad, is a request of advanceDecrypt', async () => {
    const bound = utf8('context');
    const sealed = await kms.advanceEncrypt({ plaintext: message, aad: bound });
    expect((await kms.advanceDecrypt({ ...sealed, aad: bound })).plaintext).toEqual(message);
  });

  test('generateDataKey and its kin: the blob opens to the data key, by its own operation', async () => {
    const raw = await kms.generateDataKey({ dataKeySpec: 'AES_128' });
    expect(raw.plaintext).toHaveLength(16);
    const { plaintext: rawPlaintext, ...rawRest } = raw;
    expect((await kms.decrypt(rawRest)).plaintext).toEqual(rawPlaintext);
    const advance = await kms.advanceGenerateDataKey();
    expect((await kms.advanceDecrypt({ ciphertextBlob: advance.ciphertextBlob })).plaintext).toEqual(advance.plaintext);
    const hidden = await kms.generateDataKeyWithoutPlaintext({ numberOfBytes: 100 });
    expect(hidden).not.toHaveProperty('plaintext');
    expect((await kms.advanceDecrypt(hidden)).plaintext).toHaveLength(100);
  });

  test('a data key: using zeroes it', async () => {
    let seen: Uint8Array;
    {
      using dataKey = await kms.advanceGenerateDataKey();
      seen = dataKey.plaintext;
      expect(seen.some((byte) => byte !== 0)).toBe(true);
    }
    expect(seen.every((byte) => byte === 0)).toBe(true);
  });

  test.each(['RSA_2048', 'RSA_3072'] as const)('%s: OAEP of both hashes goes round, and what OpenSSL made with the public key opens', async (keySpec) => {
    const { keyId } = await kms.createKey({ keySpec, keyUsage: 'ENCRYPT_DECRYPT' });
    const { publicKey } = await kms.getPublicKey({ keyId });
    for (const [algorithm, oaepHash] of [
      ['RSAES_OAEP_SHA_256', 'sha256'],
      ['RSAES_OAEP_SHA_1', 'sha1'],
    ] as [EncryptionAlgorithm, string][]) {
      expect((await kms.decrypt(await kms.encrypt({ keyId, plaintext: message, algorithm }))).plaintext).toEqual(message);
      const foreign = publicEncrypt({ key: publicKey, oaepHash, padding: constants.RSA_PKCS1_OAEP_PADDING }, message);
      expect((await kms.decrypt({ keyId, ciphertextBlob: foreign, algorithm })).plaintext).toEqual(message);
    }
  });

  test('RSA: a byte past k - 2h - 2 is refused by name', async () => {
    const { keyId } = await kms.createKey({ keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' });
    await expect(kms.encrypt({ keyId, plaintext: new Uint8Array(190).fill(1) })).resolves.toBeDefined();
    await expect(kms.encrypt({ keyId, plaintext: new Uint8Array(191).fill(1) })).rejects.toMatchObject({
      code: 'ERR_INVALID_PARAMS',
      details: { path: '/plaintext' },
    });
  });

  test('what does not open: one answer for every cause', async () => {
    const { keyId: other, primaryKeyVersionId: otherVersion } = await kms.createKey();
    const bound = utf8('right');
    const sealed = await kms.advanceEncrypt({ plaintext: message, aad: bound });
    const raw = await kms.encrypt({ plaintext: message, aad: bound });
    const flip = (bytes: Uint8Array, at: number): Uint8Array => bytes.map((byte, index) => (index === at ? byte ^ 1 : byte));
    const blob = sealed.ciphertextBlob;
    const attempts = [
      ...[0, 3, 4, 5, 10, 25, 36, blob.length - 1].map((at) => kms.advanceDecrypt({ ciphertextBlob: flip(blob, at), aad: bound })),
      kms.advanceDecrypt({ ciphertextBlob: blob, aad: utf8('wrong') }),
      kms.advanceDecrypt({ ciphertextBlob: blob.subarray(0, -1), aad: bound }),
      kms.advanceDecrypt({ ciphertextBlob: blob.subarray(0, 20), aad: bound }),
      kms.advanceDecrypt({ ciphertextBlob: blob, aad: bound, keyId: other }),
      kms.advanceDecrypt({ ciphertextBlob: blob, aad: bound, keyVersionId: other }),
      kms.decrypt({ ...raw, keyId: other, keyVersionId: otherVersion, aad: bound }),
      kms.decrypt({ ...raw, aad: utf8('wrong') }),
      kms.decrypt({ ...raw, aad: bound, iv: flip(raw.iv ?? new Uint8Array(), 3) }),
      kms.decrypt({ ...raw, aad: bound, ciphertextBlob: flip(raw.ciphertextBlob, 2) }),
      kms.decrypt({ ...raw, aad: bound, ciphertextBlob: raw.ciphertextBlob.subarray(0, 5) }),
    ];
    const errors = await Promise.all(
      attempts.map((attempt) =>
        attempt.then(
          () => 'opened',
          (error: { code: string; message: string; details: object }) => JSON.stringify([error.code, error.message, error.details]),
        ),
      ),
    );
    expect(new Set(errors)).toEqual(new Set([JSON.stringify(['ERR_INVALID_CIPHERTEXT', 'The ciphertext does not open with this key, IV and AAD.', {}])]));
  });

  test('raw operations neither open nor make advance blobs', async () => {
    const disguised = utf8('kms and more');
    for (const attempt of [kms.encrypt({ plaintext: message, aad: disguised }), kms.generateDataKey({ aad: disguised })]) {
      await expect(attempt).rejects.toMatchObject({ code: 'ERR_INVALID_PARAMS', details: { path: '/aad' } });
    }
  });
});

describe('signatures', () => {
  const cases: [KeyMetadata['keySpec'], SigningAlgorithm, string[]][] = [
    ['EC_P256', 'ECDSA_SHA_256', []],
    ['EC_P256K', 'ECDSA_SHA_256', []],
    ...(['RSA_2048', 'RSA_3072'] as const).flatMap((spec): typeof cases => [
      [spec, 'RSA_PSS_SHA_256', ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:32']],
      [spec, 'RSA_PKCS1_SHA_256', []],
    ]),
  ];

  test.each(cases)('%s %s: RAW and DIGEST sign the same thing, and OpenSSL verifies both', async (keySpec, algorithm, opensslOptions) => {
    using folder = new TempFolder();
    const { keyId } = await kms.createKey({ keySpec, keyUsage: 'SIGN_VERIFY' });
    const { publicKey } = await kms.getPublicKey({ keyId });
    writeFileSync(folder.join('key.pem'), publicKey);
    writeFileSync(folder.join('message'), message);
    const raw = await kms.sign({ keyId, message, algorithm });
    const hashed = await kms.sign({ keyId, message: digest, messageType: 'DIGEST', algorithm });
    for (const { signature } of [raw, hashed]) {
      writeFileSync(folder.join('signature'), signature);
      const args = ['dgst', '-sha256', '-verify', folder.join('key.pem'), '-signature', folder.join('signature'), ...opensslOptions, folder.join('message')];
      expect(execFileSync('openssl', args).toString().trim()).toBe('Verified OK');
      expect(await kms.verify({ keyId, message, signature, algorithm })).toMatchObject({ valid: true, messageType: 'RAW' });
      expect(await kms.verify({ keyId, message: digest, messageType: 'DIGEST', signature, algorithm })).toMatchObject({ valid: true });
      expect(await kms.verify({ keyId, message: utf8('something else'), signature, algorithm })).toMatchObject({ valid: false });
    }
    expect((await kms.verify({ ...raw, message })).valid).toBe(true);
    await expect(kms.assertValidSignature({ ...raw, message: utf8('x') })).rejects.toMatchObject({ code: 'ERR_SIGNATURE_INVALID' });
  });

  test.each(['EC_P256', 'EC_P256K'] as const)('%s: P1363 is r and s, for RAW and DIGEST', async (keySpec) => {
    const { keyId } = await kms.createKey({ keySpec });
    const key = createPublicKey((await kms.getPublicKey({ keyId })).publicKey);
    for (let round = 0; round < 20; round += 1) {
      for (const input of [{ message }, { message: digest, messageType: 'DIGEST' as const }]) {
        const signed = await kms.sign({ keyId, signatureFormat: 'P1363', ...input });
        expect(signed.signature).toHaveLength(64);
        expect(verifyHere('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, signed.signature)).toBe(true);
        expect((await kms.verify({ ...signed, ...input })).valid).toBe(true);
      }
    }
  });

  test('verify: what is no signature is not valid', async () => {
    const { keyId } = await kms.createKey({ keySpec: 'EC_P256' });
    for (const signature of [new Uint8Array(0), new Uint8Array(64), utf8('nonsense'), new Uint8Array(8192).fill(0x30)]) {
      for (const signatureFormat of ['DER', 'P1363'] as const) {
        expect(await kms.verify({ keyId, message, signature, signatureFormat })).toMatchObject({ valid: false });
        expect(await kms.verify({ keyId, message: digest, messageType: 'DIGEST', signature, signatureFormat })).toMatchObject({ valid: false });
      }
    }
  });
});

describe('versions', () => {
  test('createKeyVersion: old and new blobs open, encrypt stays with the initial version, reEncrypt moves on', async () => {
    const { keyId, primaryKeyVersionId: first } = await kms.createKey();
    const old = await kms.advanceEncrypt({ keyId, plaintext: message });
    const { keyVersionId: second } = await kms.createKeyVersion({ keyId });
    const fresh = await kms.advanceEncrypt({ keyId, plaintext: message });
    expect([old.keyVersionId, fresh.keyVersionId]).toEqual([first, second]);
    for (const sealed of [old, fresh]) expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(message);
    expect((await kms.encrypt({ keyId, plaintext: message })).keyVersionId).toBe(first);
    expect((await kms.encrypt({ keyId, plaintext: message, keyVersionId: second })).keyVersionId).toBe(second);
    const moved = await kms.reEncrypt({ ciphertextBlob: old.ciphertextBlob, destinationKeyId: keyId });
    expect(moved).toMatchObject({ sourceKeyVersionId: first, keyVersionId: second, keyId, sourceKeyId: keyId });
    expect(JSON.stringify(moved)).not.toContain('plaintext');
    expect((await kms.advanceDecrypt({ ciphertextBlob: moved.ciphertextBlob })).plaintext).toEqual(message);
  });

  test('setPrimary false: signs with the old version until setPrimaryKeyVersion, and verify finds either', async () => {
    const { keyId, primaryKeyVersionId: first } = await kms.createKey({ keySpec: 'EC_P256' });
    const { keyVersionId: second } = await kms.createKeyVersion({ keyId, setPrimary: false });
    const before = await kms.sign({ keyId, message });
    expect(before.keyVersionId).toBe(first);
    expect((await kms.getPublicKey({ keyId, keyVersionId: second })).keyVersionId).toBe(second);
    await kms.setPrimaryKeyVersion({ keyId, keyVersionId: second });
    const after = await kms.sign({ keyId, message });
    expect(after.keyVersionId).toBe(second);
    for (const { signature, keyVersionId } of [before, after])
      expect(await kms.verify({ keyId, message, signature })).toMatchObject({ valid: true, keyVersionId });
    expect(await Array.fromAsync(kms.listAllKeyVersions({ keyId, limit: 1 }))).toMatchObject([
      { keyVersionId: first, initial: true, primary: false },
      { keyVersionId: second, initial: false, primary: true },
    ]);
  });
});

describe('keys and aliases', () => {
  test('createKey: the same clientToken answers the first result, also while it runs', async () => {
    const params = { keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY', clientToken: 'once' } as const;
    const made = await Promise.all([kms.createKey(params), kms.createKey(params), kms.createKey(params)]);
    expect(new Set(made.map(({ keyId }) => keyId)).size).toBe(1);
    expect((await kms.createKey(params)).keyId).toBe(made[0]?.keyId);
    await expect(kms.createKeyVersion({ keyId: made[0]?.keyId ?? '', clientToken: 'once' })).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
  });

  test('aliases: made, listed, moved and deleted; every answer has the real keyId', async () => {
    const [one, two] = [await kms.createKey({ aliasName: 'alias/app/one' }), await kms.createKey()];
    expect((await kms.advanceEncrypt({ keyId: 'alias/app/one', plaintext: message })).keyId).toBe(one.keyId);
    await kms.updateAlias({ aliasName: 'alias/app/one', keyId: two.keyId });
    expect((await kms.describeKey({ keyId: 'alias/app/one' })).keyId).toBe(two.keyId);
    await expect(kms.createAlias({ aliasName: 'alias/app/one', keyId: one.keyId })).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
    await kms.createAlias({ aliasName: 'alias/app/other', keyId: two.keyId });
    expect((await kms.listAliases({ keyId: two.keyId })).aliases.map(({ aliasName }) => aliasName)).toEqual(['alias/app/one', 'alias/app/other']);
    await kms.deleteAlias({ aliasName: 'alias/app/one' });
    await expect(kms.describeKey({ keyId: 'alias/app/one' })).rejects.toMatchObject({ code: 'ERR_ALIAS_NOT_FOUND' });
  });

  test('updateAlias of a key with all the aliases it may have: to itself as it was, and no other to it', async () => {
    const [full, other] = [await kms.createKey(), await kms.createKey()];
    for (let made = 0; made < 100; made += 1) await kms.createAlias({ aliasName: `alias/full/${made}`, keyId: full.keyId });
    expect(await kms.updateAlias({ aliasName: 'alias/full/7', keyId: full.keyId })).toMatchObject({ keyId: full.keyId });
    await kms.createAlias({ aliasName: 'alias/other', keyId: other.keyId });
    const tooMany = { code: 'ERR_LIMIT_EXCEEDED' };
    await expect(kms.updateAlias({ aliasName: 'alias/other', keyId: full.keyId })).rejects.toMatchObject(tooMany);
    await expect(kms.createAlias({ aliasName: 'alias/more', keyId: full.keyId })).rejects.toMatchObject(tooMany);
  });

  test('the default key: used when none is named, one only, and its alias stays', async () => {
    const { keyId } = await kms.describeKey({ keyId: 'alias/default' });
    expect((await kms.encrypt({ plaintext: message })).keyId).toBe(keyId);
    await expect(kms.createKey({ aliasName: 'alias/default' })).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
    await expect(kms.deleteAlias({ aliasName: 'alias/default' })).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED_OPERATION' });
    await expect(kms.updateAlias({ aliasName: 'alias/default', keyId })).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED_OPERATION' });
  });

  test('listKeys: pages hold each key once, and filters narrow', async () => {
    for (let index = 0; index < 5; index += 1) await kms.createKey({ tags: { lot: 'a', index: String(index) } });
    const all = await Array.fromAsync(kms.listAllKeys({ limit: 2, filters: { tags: { lot: 'a' } } }));
    expect(all.map(({ tags }) => tags['index'])).toEqual(['0', '1', '2', '3', '4']);
    const { nextToken = '' } = await kms.listKeys({ limit: 1 });
    await expect(kms.listKeys({ limit: 1, nextToken, filters: { keySpec: ['AES_256'] } })).rejects.toMatchObject({ details: { path: '/nextToken' } });
    const ec = await kms.listKeys({ filters: { keySpec: ['EC_P256', 'EC_P256K'] }, limit: 1000 });
    expect(new Set(ec.keys.map(({ keyUsage }) => keyUsage))).toEqual(new Set(['SIGN_VERIFY']));
  });
});
