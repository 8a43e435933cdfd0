import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import type { EncryptionAlgorithm, KeySpec, SigningAlgorithm } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import { SoftwareProvider } from '../../daemon/src/providers/software/provider.ts';
import { TempFolder } from '../kit/agent.ts';

const rsa = ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'];
const ec = (curve: string): string[] => ['-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${curve}`];
const pss = ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:32'];

/** A private key that the openssl program made, as PKCS#8 DER. */
function makeKey(folder: TempFolder, generation: readonly string[]): Uint8Array {
  execFileSync('openssl', ['genpkey', ...generation, '-out', folder.join('key.pem')], { stdio: 'ignore' });
  return execFileSync('openssl', ['pkcs8', '-topk8', '-nocrypt', '-in', folder.join('key.pem'), '-outform', 'DER']);
}

test.each([
  ['EC_P256', 'ECDSA_SHA_256', ec('P-256'), []],
  ['EC_P256K', 'ECDSA_SHA_256', ec('secp256k1'), []],
  ['RSA_2048', 'RSA_PKCS1_SHA_256', rsa, []],
  ['RSA_2048', 'RSA_PSS_SHA_256', rsa, pss],
] as [KeySpec, SigningAlgorithm, string[], string[]][])(
  '%s %s: a signature that the openssl program made is valid here, of the message and of its digest',
  async (keySpec, algorithm, generation, options) => {
    using folder = new TempFolder();
    const ref = { keyVersionId: 'x', keySpec, material: makeKey(folder, generation) };
    const message = Buffer.from('what is signed');
    writeFileSync(folder.join('message'), message);
    execFileSync('openssl', ['dgst', '-sha256', '-sign', folder.join('key.pem'), ...options, '-out', folder.join('signature'), folder.join('message')]);
    const signature = readFileSync(folder.join('signature'));
    const provider = new SoftwareProvider();
    const digest = createHash('sha256').update(message).digest();
    expect(await provider.verify(ref, { algorithm, messageType: 'RAW', message, signature })).toBe(true);
    expect(await provider.verify(ref, { algorithm, messageType: 'DIGEST', message: digest, signature })).toBe(true);
    expect(await provider.verify(ref, { algorithm, messageType: 'RAW', message: digest, signature })).toBe(false);
  },
);

test.each([
  ['RSAES_OAEP_SHA_256', 'sha256'],
  ['RSAES_OAEP_SHA_1', 'sha1'],
] as [EncryptionAlgorithm, string][])('%s: what the openssl program encrypted with the exported public key opens here', async (algorithm, hash) => {
  using folder = new TempFolder();
  const provider = new SoftwareProvider();
  const generated = await provider.generate({ keyId: 'x', keyVersionId: 'x', keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' });
  const ref = { keyVersionId: 'x', keySpec: 'RSA_2048' as const, material: generated.material };
  writeFileSync(folder.join('public.der'), await provider.publicKey(ref));
  const options = ['-pkeyopt', 'rsa_padding_mode:oaep', '-pkeyopt', `rsa_oaep_md:${hash}`, '-pkeyopt', `rsa_mgf1_md:${hash}`];
  const ciphertext = execFileSync('openssl', ['pkeyutl', '-encrypt', '-pubin', '-keyform', 'DER', '-inkey', folder.join('public.der'), ...options], {
    input: 'hello',
  });
  expect(Buffer.from(await provider.decrypt(ref, { algorithm, ciphertext })).toString()).toBe('hello');
});
