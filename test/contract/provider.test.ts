import { constants, createHash, createPublicKey, publicEncrypt, randomBytes, verify } from 'node:crypto';
import { type EncryptionAlgorithm, isAgentError, type KeySpec, type KeyUsage, keySpecs } from '@kms-agent/protocol';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeUuid7 } from '../../daemon/src/keyring/uuid7.ts';
import type { Encrypter, Importer, MaterialRef, Provider, Signer } from '../../daemon/src/providers/provider.ts';
import { SoftwareProvider } from '../../daemon/src/providers/software/provider.ts';
import { TempFolder } from '../kit/agent.ts';
import { FakeProvider } from '../kit/fake-provider.ts';
import { hasSoftHsm, makeTokenProvider, SoftHsm } from '../kit/softhsm.ts';

type Whole = Provider & Encrypter & Signer & Importer;

/** Every spec and usage that keys.md has for a kind of key. */
const expected = {
  software: ['AES_256', 'RSA_2048', 'RSA_3072', 'EC_P256', 'EC_P256K'],
  pkcs11: ['AES_256', 'AES_192', 'AES_128', 'RSA_2048', 'RSA_3072', 'RSA_4096', 'EC_P256', 'EC_P256K'],
} as const;

const usages: readonly KeyUsage[] = ['ENCRYPT_DECRYPT', 'SIGN_VERIFY'];

async function refuses(work: Promise<unknown>, code: string): Promise<void> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(isAgentError(error) ? error.code : error).toBe(code);
}

const folder = new TempFolder();
const providers: [string, () => Whole][] = [
  ['software', () => new SoftwareProvider()],
  ['fake', () => new FakeProvider()],
];
if (hasSoftHsm) providers.push(['pkcs11', () => makeTokenProvider(new SoftHsm(folder), 'contract')]);
else test.skip('pkcs11: SoftHSM is not installed');

afterAll(() => folder[Symbol.dispose]());

describe.each(providers)('the provider %s', (_name, make) => {
  let provider: Whole;
  const keys = new Map<string, MaterialRef>();

  beforeAll(async () => {
    provider = make();
    await provider.ready();
  });
  afterAll(async () => {
    await provider.close();
  });

  async function keyOf(keySpec: KeySpec, keyUsage: KeyUsage): Promise<MaterialRef> {
    const name = `${keySpec} ${keyUsage}`;
    const known = keys.get(name);
    if (known) return known;
    const keyVersionId = makeUuid7(Date.now());
    const made = { keyVersionId, keySpec, ...(await provider.generate({ keyId: keyVersionId, keyVersionId, keySpec, keyUsage })) };
    keys.set(name, made);
    return made;
  }

  const offered = (): [KeySpec, KeyUsage][] =>
    keySpecs.flatMap((spec) => usages.filter((usage) => provider.abilities(spec, usage)).map((usage): [KeySpec, KeyUsage] => [spec, usage]));

  test('offers the specs of its kind of key, each with an algorithm', () => {
    const specs = new Set(offered().map(([spec]) => spec));
    expect(specs).toEqual(new Set(expected[provider.kind]));
    for (const [spec, usage] of offered()) {
      const { encryptionAlgorithms = [], signingAlgorithms = [] } = provider.abilities(spec, usage) ?? {};
      expect(usage === 'SIGN_VERIFY' ? signingAlgorithms.length : encryptionAlgorithms.length, `${spec} ${usage}`).toBeGreaterThan(0);
    }
    expect(provider.status().state).toBe('ok');
  });

  test('opens what it sealed, and nothing that was changed', async () => {
    for (const [spec, usage] of offered().filter(([, usage]) => usage === 'ENCRYPT_DECRYPT')) {
      const ref = await keyOf(spec, usage);
      for (const algorithm of provider.abilities(spec, usage)?.encryptionAlgorithms ?? []) await checkSealing(provider, ref, algorithm);
    }
  }, 120_000);

  test('signs as OpenSSL verifies, raw and as a digest, and takes no other signature', async () => {
    for (const [spec, usage] of offered().filter(([, usage]) => usage === 'SIGN_VERIFY')) {
      const ref = await keyOf(spec, usage);
      const key = createPublicKey({ key: Buffer.from(await provider.publicKey(ref)), format: 'der', type: 'spki' });
      const message = randomBytes(100);
      const digest = createHash('sha256').update(message).digest();
      for (const algorithm of provider.abilities(spec, usage)?.signingAlgorithms ?? []) {
        const isEc = algorithm === 'ECDSA_SHA_256';
        for (const signatureFormat of isEc ? (['DER', 'P1363'] as const) : [undefined])
          for (const [messageType, input] of [['RAW', message] as const, ['DIGEST', digest] as const]) {
            const choices = { algorithm, messageType, message: input, ...(signatureFormat ? { signatureFormat } : {}) };
            const signature = await provider.sign(ref, choices);
            const padding = algorithm === 'RSA_PSS_SHA_256' ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
            const dsaEncoding = signatureFormat === 'P1363' ? 'ieee-p1363' : 'der';
            expect(verify('sha256', message, isEc ? { key, dsaEncoding } : { key, padding, saltLength: 32 }, signature), `${spec} ${algorithm}`).toBe(true);
            expect(await provider.verify(ref, { ...choices, signature })).toBe(true);
            expect(await provider.verify(ref, { ...choices, message: messageType === 'RAW' ? randomBytes(9) : randomBytes(32), signature })).toBe(false);
            expect(await provider.verify(ref, { ...choices, signature: signature.subarray(1) })).toBe(false);
            expect(await provider.verify(ref, { ...choices, signature: new Uint8Array() })).toBe(false);
          }
      }
    }
  }, 120_000);

  test('has no public key for a symmetric one, and the same one each time for a pair', async () => {
    await refuses(provider.publicKey({ ...(await keyOf('AES_256', 'ENCRYPT_DECRYPT')) }), 'ERR_UNSUPPORTED_OPERATION');
    const pair = await keyOf('EC_P256', 'SIGN_VERIFY');
    expect(await provider.publicKey(pair)).toEqual(await provider.publicKey(pair));
  });

  test('works side by side without mixing anything up', async () => {
    const aes = await keyOf('AES_256', 'ENCRYPT_DECRYPT');
    const ec = await keyOf('EC_P256', 'SIGN_VERIFY');
    await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const plaintext = Buffer.from(`message ${index}`);
        const { ciphertext, iv = new Uint8Array() } = await provider.encrypt(aes, { algorithm: 'AES_GCM', plaintext });
        expect(Buffer.from(await provider.decrypt(aes, { algorithm: 'AES_GCM', ciphertext, iv })).toString()).toBe(`message ${index}`);
        const input = { algorithm: 'ECDSA_SHA_256', messageType: 'RAW', message: plaintext } as const;
        expect(await provider.verify(ec, { ...input, signature: await provider.sign(ec, input) })).toBe(true);
      }),
    );
  }, 60_000);

  test('takes in wrapped material, and refuses what is none', async () => {
    const keyVersionId = makeUuid7(Date.now());
    const made = { keyId: keyVersionId, keyVersionId, keySpec: 'AES_256', keyUsage: 'ENCRYPT_DECRYPT' } as const;
    const material = randomBytes(32);
    for (const algorithm of provider.importAlgorithms('AES_256')) {
      if (algorithm === 'RSA_AES_KEY_WRAP_SHA_256') continue;
      const { publicKey, state } = await provider.makeWrappingPair({ id: makeUuid7(Date.now()), keySpec: 'RSA_2048', algorithm, label: 'kms-agent import' });
      const wrap = (bytes: Uint8Array): Uint8Array => publicEncrypt(oaepOf(publicKey, algorithm), bytes);
      const input = { algorithm, state, hasMaterial: false };
      for (const wrong of [wrap(randomBytes(16)), wrap(randomBytes(31)), wrap(randomBytes(33)), randomBytes(256), randomBytes(255), new Uint8Array()])
        await refuses(provider.unwrap(made, { ...input, wrapped: wrong }), 'ERR_INVALID_KEY_MATERIAL');
      const unwrapped = await provider.unwrap(made, { ...input, wrapped: wrap(material) });
      const { ciphertext, iv = new Uint8Array() } = await provider.encrypt({ ...made, ...unwrapped }, { algorithm: 'AES_GCM', plaintext: randomBytes(20) });
      const software = new SoftwareProvider();
      expect(await software.decrypt({ keyVersionId: 'x', keySpec: 'AES_256', material }, { algorithm: 'AES_GCM', ciphertext, iv })).toHaveLength(20);
      await provider.destroy({ ...made, ...unwrapped });
    }
  }, 60_000);

  test('lets nobody use a key that was destroyed', async () => {
    const keyVersionId = makeUuid7(Date.now());
    const made = { keyId: keyVersionId, keyVersionId, keySpec: 'AES_256', keyUsage: 'ENCRYPT_DECRYPT' } as const;
    const ref = { ...made, ...(await provider.generate(made)) };
    await provider.encrypt(ref, { algorithm: 'AES_GCM', plaintext: randomBytes(1) });
    await provider.destroy(ref);
    const error: unknown = await provider.encrypt(ref, { algorithm: 'AES_GCM', plaintext: randomBytes(1) }).catch((thrown: unknown) => thrown);
    expect(isAgentError(error, 'ERR_INTERNAL', 'ERR_KEY_UNAVAILABLE')).toBe(true);
    await provider.destroy(ref); // again is no error
  });

  test('serves again after a lock', async () => {
    const ref = await keyOf('AES_256', 'ENCRYPT_DECRYPT');
    const sealed = await provider.encrypt(ref, { algorithm: 'AES_GCM', plaintext: Buffer.from('kept') });
    await provider.lock();
    await provider.ready();
    const { ciphertext, iv = new Uint8Array() } = sealed;
    expect(Buffer.from(await provider.decrypt(ref, { algorithm: 'AES_GCM', ciphertext, iv })).toString()).toBe('kept');
  });
});

function oaepOf(publicKey: Uint8Array, algorithm: string): Parameters<typeof publicEncrypt>[0] {
  const oaepHash = algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256';
  return { key: createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' }), oaepHash, padding: constants.RSA_PKCS1_OAEP_PADDING };
}

/** Round trips of many lengths, and every kind of change. */
async function checkSealing(provider: Whole, ref: MaterialRef, algorithm: EncryptionAlgorithm): Promise<void> {
  const isRsa = algorithm.startsWith('RSAES_');
  const paddings = algorithm === 'AES_CBC' || algorithm === 'AES_ECB' ? (['PKCS7_PADDING', 'NO_PADDING', undefined] as const) : [undefined];
  for (const paddingMode of paddings)
    for (const length of paddingMode === 'NO_PADDING' ? [16, 4096] : isRsa ? [1, 190] : [1, 15, 16, 17, 65_536]) {
      const options = { algorithm, ...(algorithm === 'AES_GCM' ? { aad: randomBytes(22) } : {}), ...(paddingMode ? { paddingMode } : {}) };
      const plaintext = randomBytes(length);
      const { ciphertext, iv } = await provider.encrypt(ref, { ...options, plaintext });
      const sealed = { ...options, ...(iv ? { iv } : {}) };
      expect(Buffer.compare(await provider.decrypt(ref, { ...sealed, ciphertext }), plaintext), `${ref.keySpec} ${algorithm} ${length}`).toBe(0);
      if (algorithm === 'AES_GCM' || isRsa) {
        const flipped = Buffer.from(ciphertext);
        flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1;
        await refuses(provider.decrypt(ref, { ...sealed, ciphertext: flipped }), 'ERR_INVALID_CIPHERTEXT');
      }
    }
  const iv = randomBytes(algorithm === 'AES_GCM' ? 12 : 16);
  const options = { algorithm, ...(algorithm === 'AES_GCM' || algorithm === 'AES_CBC' ? { iv } : {}) };
  for (const length of isRsa ? [0, 1, 255, 257] : [0, 1, 15])
    await refuses(provider.decrypt(ref, { ...options, ciphertext: randomBytes(length) }), 'ERR_INVALID_CIPHERTEXT');
  if (isRsa) await refuses(provider.decrypt(ref, { ...options, ciphertext: Buffer.alloc(Number(ref.keySpec.slice(4)) / 8, 0xff) }), 'ERR_INVALID_CIPHERTEXT');
  if (isRsa) await refuses(provider.encrypt(ref, { ...options, plaintext: randomBytes(Number(ref.keySpec.slice(4)) / 8) }), 'ERR_INVALID_PARAMS');
}
