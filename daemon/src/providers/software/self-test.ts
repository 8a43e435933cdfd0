import { createHash } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import { aesKey, gcmCiphertext, message, oaepCiphertexts, p256Key, p256kKey, rsaKey, signatures } from './known-answers.ts';
import type { SoftwareProvider } from './provider.ts';

async function testEncryption(provider: SoftwareProvider): Promise<boolean> {
  const zeros = await provider.decrypt(aesKey, { algorithm: 'AES_GCM', ciphertext: gcmCiphertext, iv: new Uint8Array(12) });
  const opened = await Promise.all(oaepCiphertexts.map((sealed) => provider.decrypt(rsaKey, sealed)));
  return zeros.length === 16 && zeros.every((byte) => byte === 0) && opened.every((plaintext) => Buffer.compare(plaintext, message) === 0);
}

/** Each known signature verifies, and what is signed here as a digest, which libcrypto signs directly, verifies as a signature of the message. */
async function testSignatures(provider: SoftwareProvider): Promise<boolean> {
  const digest = createHash('sha256').update(message).digest();
  const checks = signatures.map(async ({ ref, algorithm, signature }) => {
    const raw = { algorithm, message, messageType: 'RAW' } as const;
    const hashed = { algorithm, message: digest, messageType: 'DIGEST' } as const;
    const [known, crossed, foreign] = await Promise.all([
      provider.verify(ref, { ...hashed, signature }),
      provider.verify(ref, { ...raw, signature: await provider.sign(ref, hashed) }),
      provider.verify(ref, { ...raw, message: digest, signature }),
    ]);
    return known && crossed && !foreign;
  });
  return (await Promise.all(checks)).every(Boolean);
}

/**
 * One known answer for each algorithm, before the provider serves anybody: a libcrypto that differs must not touch a key.
 * @throws AgentError `ERR_INTERNAL`.
 */
export async function runSelfTest(provider: SoftwareProvider): Promise<void> {
  const passed = (await testEncryption(provider)) && (await testSignatures(provider));
  for (const ref of [aesKey, rsaKey, p256Key, p256kKey]) provider.forget(ref.keyVersionId);
  if (!passed) throw new AgentError('ERR_INTERNAL', {}, { cause: new Error('the self-test of the software provider failed') });
}
