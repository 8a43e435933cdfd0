import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { SoftwareProvider } from '../../../daemon/src/providers/software/provider.ts';
import { runSelfTest } from '../../../daemon/src/providers/software/self-test.ts';

test('runSelfTest: passes on this libcrypto, and fails on a provider that hashes a digest again or opens wrongly', async () => {
  await expect(runSelfTest(new SoftwareProvider())).resolves.toBeUndefined();
  class HashesAgain extends SoftwareProvider {
    override async sign(...[ref, input]: Parameters<SoftwareProvider['sign']>): Promise<Uint8Array> {
      return await super.sign(ref, { ...input, messageType: 'RAW' });
    }
  }
  class OpensWrongly extends SoftwareProvider {
    override async decrypt(): Promise<Uint8Array> {
      return new Uint8Array(16).fill(1);
    }
  }
  for (const provider of [new HashesAgain(), new OpensWrongly()]) await expect(runSelfTest(provider)).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
});

test('encrypt: ten thousand IVs are all different', async () => {
  const provider = new SoftwareProvider();
  const ref = { keyVersionId: 'x', keySpec: 'AES_256' as const, material: new Uint8Array(32) };
  const seen = new Set<string>();
  for (let index = 0; index < 10_000; index += 1)
    seen.add(Buffer.from((await provider.encrypt(ref, { algorithm: 'AES_GCM', plaintext: new Uint8Array(1) })).iv ?? []).toString('hex'));
  expect(seen.size).toBe(10_000);
});

test('a full cache of private keys: the least recently used go, and every key still signs', { timeout: 120_000 }, async () => {
  const provider = new SoftwareProvider();
  const made = await provider.generate({ keyId: 'seed', keyVersionId: 'seed', keySpec: 'EC_P256', keyUsage: 'SIGN_VERIFY' });
  const refs = Array.from({ length: 4000 }, (_, index) => ({ keyVersionId: `v${index}`, keySpec: 'EC_P256' as const, material: made.material }));
  const input = { algorithm: 'ECDSA_SHA_256', message: new Uint8Array([1]), messageType: 'RAW' } as const;
  for (const ref of refs) await provider.sign(ref, input);
  const [first] = refs;
  if (!first) throw new Error('there are none');
  expect(await provider.verify(first, { ...input, signature: await provider.sign(first, input) })).toBe(true);
});

test('sign: beside slower signatures the first of P-256 in each turn of the event loop waits for none, also where others of it wait', {
  timeout: 60_000,
}, async () => {
  const provider = new SoftwareProvider();
  const makeRef = async (keySpec: 'RSA_3072' | 'EC_P256') => {
    const { material } = await provider.generate({ keyId: 'k', keyVersionId: keySpec, keySpec, keyUsage: 'SIGN_VERIFY' });
    return { keyVersionId: keySpec, keySpec, material };
  };
  const [slow, quick] = [await makeRef('RSA_3072'), await makeRef('EC_P256')];
  const [message, messageType] = [new Uint8Array([1]), 'RAW' as const];
  const all: Promise<unknown>[] = Array.from({ length: 128 }, () => provider.sign(slow, { algorithm: 'RSA_PSS_SHA_256', message, messageType }));
  /** Whether a signature is there before the event loop has another turn. */
  const isSignedAtOnce = async (): Promise<boolean> => {
    let isDone = false;
    all.push(
      provider.sign(quick, { algorithm: 'ECDSA_SHA_256', message, messageType }).then(() => {
        isDone = true;
      }),
    );
    for (let hop = 0; hop < 20; hop += 1) await Promise.resolve();
    return isDone;
  };
  expect([await isSignedAtOnce(), await isSignedAtOnce()]).toEqual([true, false]);
  for (let turn = 0; turn < 3; turn += 1) {
    await nextTurn();
    expect([await isSignedAtOnce(), await isSignedAtOnce()]).toEqual([true, false]);
  }
  await Promise.all(all);
});

test('encrypt: a raw AES-GCM ciphertext opens in node:crypto with the key, and what node:crypto made opens here', async () => {
  const provider = new SoftwareProvider();
  const key = randomBytes(32);
  const ref = { keyVersionId: 'y', keySpec: 'AES_256' as const, material: new Uint8Array(key) };
  const [plaintext, aad] = [randomBytes(1000), Buffer.from('context')];
  const { ciphertext, iv } = await provider.encrypt(ref, { algorithm: 'AES_GCM', plaintext, aad });
  if (!iv) throw new Error('there is no IV');
  const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: 16 });
  decipher.setAAD(aad);
  decipher.setAuthTag(ciphertext.subarray(-16));
  expect(Buffer.concat([decipher.update(ciphertext.subarray(0, -16)), decipher.final()]).equals(plaintext)).toBe(true);
  const cipher = createCipheriv('aes-256-gcm', key, iv, { authTagLength: 16 });
  cipher.setAAD(aad);
  const foreign = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  expect(Buffer.from(await provider.decrypt(ref, { algorithm: 'AES_GCM', ciphertext: foreign, iv, aad })).equals(plaintext)).toBe(true);
});

test.each(['RSA_PSS_SHA_256', 'RSA_PKCS1_SHA_256'] as const)('verify: a signature by %s that begins with a zero is not valid without it', async (algorithm) => {
  const provider = new SoftwareProvider();
  const ids = { keyId: 'k', keyVersionId: algorithm, keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' } as const;
  const ref = { ...ids, ...(await provider.generate(ids)) };
  for (let count = 0; ; count += 1) {
    const input = { algorithm, message: Buffer.from(`${count}`), messageType: 'RAW' } as const;
    const signature = await provider.sign(ref, input);
    if (signature[0] !== 0) continue; // one in 256 does
    expect(await provider.verify(ref, { ...input, signature })).toBe(true);
    expect(await provider.verify(ref, { ...input, signature: signature.subarray(1) })).toBe(false);
    return;
  }
});
