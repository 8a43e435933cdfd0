import { createHash } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import type { MaterialRef } from '../provider.ts';
import type { SoftwareProvider } from './provider.ts';

/** Test case 14 of the GCM specification (McGrew and Viega, appendix B): key, IV and plaintext all zero. */
const gcmCiphertext = Buffer.from('cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919', 'hex');
const gcmKey: MaterialRef = { keyVersionId: 'self-test AES_256', keySpec: 'AES_256', material: new Uint8Array(32) };

/** A P-256 key made for this test and for nothing else. */
const ecKey: MaterialRef = {
  keyVersionId: 'self-test EC_P256',
  keySpec: 'EC_P256',
  material: Buffer.from(
    'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWx0H8T8xaC4+oaNoqR7mcawWQou8urHcULwQ00mxxn+hRANCAAT2A9vj0xcbnDa6ARjqKYVpwCH48gxe+Ew88CR+uoo+xwEFPrdPNOXcFfZl6hYr8Epnqy32tn9GnzMXHFMopyvl',
    'base64',
  ),
};

const message = Buffer.from('kms-agent self-test');

async function testEncryption(provider: SoftwareProvider): Promise<boolean> {
  const plaintext = await provider.decrypt(gcmKey, { algorithm: 'AES_GCM', ciphertext: gcmCiphertext, iv: new Uint8Array(12) });
  return plaintext.length === 16 && plaintext.every((byte) => byte === 0);
}

/** A digest that libcrypto signs directly must verify as a signature of the message, and the other way round. */
async function testSignatures(provider: SoftwareProvider): Promise<boolean> {
  const digest = createHash('sha256').update(message).digest();
  const hashed = { algorithm: 'ECDSA_SHA_256', message: digest, messageType: 'DIGEST' } as const;
  const raw = { algorithm: 'ECDSA_SHA_256', message, messageType: 'RAW' } as const;
  const crossed = await provider.verify(ecKey, { ...raw, signature: await provider.sign(ecKey, hashed) });
  const back = await provider.verify(ecKey, { ...hashed, signature: await provider.sign(ecKey, raw) });
  const foreign = await provider.verify(ecKey, { ...raw, message: digest, signature: await provider.sign(ecKey, raw) });
  return crossed && back && !foreign;
}

/**
 * One known answer for what this provider builds on, before it serves anybody: a libcrypto that differs must not touch a key.
 * @throws AgentError `ERR_INTERNAL`.
 */
export async function runSelfTest(provider: SoftwareProvider): Promise<void> {
  const passed = (await testEncryption(provider)) && (await testSignatures(provider));
  for (const ref of [gcmKey, ecKey]) provider.forget(ref.keyVersionId);
  if (!passed) throw new AgentError('ERR_INTERNAL', {}, { cause: new Error('the self-test of the software provider failed') });
}
