import { constants, createHash, createPublicKey, hkdfSync, randomUUID, verify as verifyHere } from 'node:crypto';
import { type EncryptionAlgorithm, isAgentError, type KeySpec, type SignatureFormat, type SigningAlgorithm } from '@kms-agent/protocol';
import { describe, expect, test } from 'vitest';
import { EvpKey, ecdsaSettings, pkcs1Settings, pssSettings, verifyDigest } from '../../daemon/src/os/evp.ts';
import { p1363ToDer } from '../../daemon/src/providers/software/ecdsa-format.ts';
import { SoftwareProvider } from '../../daemon/src/providers/software/provider.ts';
import { haveVectors, hex, readVectors, type VectorCase } from '../kit/vectors.ts';

const provider = new SoftwareProvider();
const settings = { RSA_PSS_SHA_256: pssSettings, RSA_PKCS1_SHA_256: pkcs1Settings, ECDSA_SHA_256: ecdsaSettings };

/** Compares every case with what the file expects; names those that differ. */
async function checkCases(cases: readonly VectorCase[], accepts: (vector: VectorCase) => Promise<boolean> | boolean): Promise<void> {
  const wrong: string[] = [];
  expect(cases.length).toBeGreaterThan(0);
  for (const vector of cases) {
    const accepted = await accepts(vector);
    if (vector.result !== 'acceptable' && accepted !== (vector.result === 'valid'))
      wrong.push(`${vector.tcId} ${vector.result} ${vector.comment} ${vector.flags.join()}`);
  }
  expect(wrong).toEqual([]);
}

/** Whether something opens to what the vector says; any answer but ERR_INVALID_CIPHERTEXT is a defect. */
async function opens(work: () => Promise<Uint8Array>, expected: Uint8Array): Promise<boolean> {
  try {
    return Buffer.from(await work()).equals(expected);
  } catch (error) {
    if (isAgentError(error, 'ERR_INVALID_CIPHERTEXT')) return false;
    throw error;
  }
}

const freshId = randomUUID;

describe.skipIf(!haveVectors)('Wycheproof (needs the vectors: KMS_AGENT_VECTORS)', () => {
  test('aes_gcm: 256-bit keys, 96-bit IVs and 128-bit tags as the file says; other IVs and tags are refused', async () => {
    const groups = readVectors('aes_gcm_test.json').filter((group) => group['keySize'] === 256);
    expect(groups.length).toBeGreaterThan(3);
    for (const group of groups) {
      const ours = group['ivSize'] === 96 && group['tagSize'] === 128;
      const cases = ours ? group.tests : group.tests.map((vector) => ({ ...vector, result: 'invalid' as const }));
      await checkCases(cases, (vector) => {
        const ref = { keyVersionId: freshId(), keySpec: 'AES_256' as const, material: hex(vector['key']) };
        const ciphertext = Buffer.concat([hex(vector['ct']), hex(vector['tag'])]);
        return opens(() => provider.decrypt(ref, { algorithm: 'AES_GCM', ciphertext, iv: hex(vector['iv']), aad: hex(vector['aad']) }), hex(vector['msg']));
      });
    }
  });

  test.each([
    ['rsa_oaep_2048_sha256_mgf1sha256_test.json', 'RSA_2048', 'RSAES_OAEP_SHA_256'],
    ['rsa_oaep_2048_sha1_mgf1sha1_test.json', 'RSA_2048', 'RSAES_OAEP_SHA_1'],
    ['rsa_oaep_3072_sha256_mgf1sha256_test.json', 'RSA_3072', 'RSAES_OAEP_SHA_256'],
  ] as [string, KeySpec, EncryptionAlgorithm][])('%s: every case; with a label it does not open, we use none', async (file, keySpec, algorithm) => {
    for (const group of readVectors(file)) {
      const ref = { keyVersionId: freshId(), keySpec, material: hex(group['privateKeyPkcs8']) };
      const cases = group.tests.map((vector) => (vector['label'] === '' ? vector : { ...vector, result: 'invalid' as const }));
      await checkCases(cases, (vector) => opens(() => provider.decrypt(ref, { algorithm, ciphertext: hex(vector['ct']) }), hex(vector['msg'])));
    }
  });

  test.each([
    ['ecdsa_secp256r1_sha256_test.json', 'ECDSA_SHA_256', 'DER'],
    ['ecdsa_secp256r1_sha256_p1363_test.json', 'ECDSA_SHA_256', 'P1363'],
    ['ecdsa_secp256k1_sha256_test.json', 'ECDSA_SHA_256', 'DER'],
    ['ecdsa_secp256k1_sha256_p1363_test.json', 'ECDSA_SHA_256', 'P1363'],
    ['rsa_signature_2048_sha256_test.json', 'RSA_PKCS1_SHA_256', undefined],
    ['rsa_signature_3072_sha256_test.json', 'RSA_PKCS1_SHA_256', undefined],
    ['rsa_pss_2048_sha256_mgf1_32_test.json', 'RSA_PSS_SHA_256', undefined],
    ['rsa_pss_3072_sha256_mgf1_32_test.json', 'RSA_PSS_SHA_256', undefined],
  ] as [string, SigningAlgorithm, SignatureFormat | undefined][])(
    '%s: every case, of the message and of its digest',
    async (file, algorithm, signatureFormat) => {
      for (const group of readVectors(file)) {
        const spki = hex(group['publicKeyDer'] ?? (group['publicKeyAsn'] as string));
        const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
        const evp = EvpKey.fromPublic(spki);
        await checkCases(group.tests, (vector) => {
          const message = hex(vector['msg']);
          const signature = hex(vector['sig']);
          const options =
            algorithm === 'RSA_PSS_SHA_256'
              ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }
              : { dsaEncoding: signatureFormat === 'P1363' ? ('ieee-p1363' as const) : ('der' as const) };
          const whole = verifyHere('sha256', message, { key, ...options }, signature);
          const der = signatureFormat === 'P1363' ? p1363ToDer(signature) : signature;
          const digest = createHash('sha256').update(message).digest();
          const hashed = der !== undefined && verifyDigest(evp, settings[algorithm], digest, der);
          expect([vector.tcId, hashed]).toEqual([vector.tcId, whole]);
          return whole;
        });
        evp.free();
      }
    },
  );

  test('hkdf_sha256: the derivation under the vault', async () => {
    for (const group of readVectors('hkdf_sha256_test.json')) {
      await checkCases(group.tests, (vector) => {
        const size = Number(vector['size']);
        if (size > 255 * 32) return false;
        return Buffer.from(hkdfSync('sha256', hex(vector['ikm']), hex(vector['salt']), hex(vector['info']), size)).equals(hex(vector['okm']));
      });
    }
  });
});
