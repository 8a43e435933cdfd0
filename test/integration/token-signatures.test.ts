import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { isAgentError, type KeySpec, type SigningAlgorithm } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { TempFolder } from '../kit/agent.ts';
import { FaultyRig } from '../kit/fault.ts';
import { codeOf } from '../kit/outcome.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';

describe.skipIf(!hasSoftHsm)('signatures of a token (needs SoftHSM and gcc)', () => {
  test.each(['RSA_2048', 'EC_P256', 'EC_P256K'] as const)(
    '%s: a module that flips a bit now and then: no wrong signature goes out, with 1 and with 16 in parallel',
    async (keySpec) => {
      await using faulty = await FaultyRig.make();
      const { rig, fault } = faulty;
      const kms = await rig.client();
      const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec, keyUsage: 'SIGN_VERIFY' });
      const signed = { right: 0, wrong: 0 };
      const told = new Set<string>();
      const sign = async (text: string): Promise<void> => {
        const message = Buffer.from(text);
        try {
          const made = await kms.sign({ keyId, message });
          const isRight = (await kms.verify({ ...made, message })).valid;
          signed[isRight ? 'right' : 'wrong'] += 1;
        } catch (error) {
          told.add(isAgentError(error) ? error.code : String(error));
        }
      };
      fault.begin('C_Sign', 'flip', 'x00001');
      for (let index = 0; index < 20; index += 1) await sign(`one ${index}`);
      for (let round = 0; round < 10; round += 1) await Promise.all(Array.from({ length: 16 }, (_, index) => sign(`many ${round} ${index}`)));
      fault.end();
      expect(signed.wrong).toBe(0);
      expect(signed.right).toBeGreaterThan(0);
      for (const code of told) expect(['ERR_HSM_FAILED', 'ERR_KEY_UNAVAILABLE']).toContain(code);
      expect(await codeOf(kms.sign({ keyId, message: Buffer.from('well again') }))).toBe('no error');
    },
  );
});

const pss = ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:32'];

/** Whether the openssl program takes a signature for one of a message, by a public key in PEM. */
function opensslTakes(folder: TempFolder, signed: { publicKey: string; message: Uint8Array; signature: Uint8Array }, options: readonly string[]): boolean {
  for (const [name, content] of Object.entries(signed)) writeFileSync(folder.join(name), content);
  const [key, message, signature] = ['publicKey', 'message', 'signature'].map((name) => folder.join(name)) as [string, string, string];
  try {
    execFileSync('openssl', ['dgst', '-sha256', '-verify', key, '-signature', signature, ...options, message], { stdio: 'pipe' });
    return true;
  } catch (error) {
    if (String((error as { stdout?: Buffer }).stdout).includes('Verification failure')) return false;
    throw error;
  }
}

describe.skipIf(!hasSoftHsm)('a token and the openssl program (needs SoftHSM)', () => {
  test.each([
    ['RSA_2048', 'RSA_PSS_SHA_256', pss],
    ['RSA_2048', 'RSA_PKCS1_SHA_256', []],
    ['EC_P256', 'ECDSA_SHA_256', []],
    ['EC_P256K', 'ECDSA_SHA_256', []],
  ] as [KeySpec, SigningAlgorithm, string[]][])(
    '%s %s: signatures of the token, of a message and of its digest, are valid to the openssl program, by what getPublicKey gave; of another message they are not',
    async (keySpec, algorithm, options) => {
      using folder = new TempFolder();
      await using rig = await TokenRig.make();
      const kms = await rig.client();
      const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec, keyUsage: 'SIGN_VERIFY' });
      const { publicKey } = await kms.getPublicKey({ keyId });
      for (const bytes of [1, 64, 1000]) {
        const message = randomBytes(bytes);
        const digest = createHash('sha256').update(message).digest();
        const ofMessage = await kms.sign({ keyId, message, algorithm });
        const ofDigest = await kms.sign({ keyId, message: digest, messageType: 'DIGEST', algorithm });
        for (const { signature } of [ofMessage, ofDigest]) {
          expect(opensslTakes(folder, { publicKey, message, signature }, options)).toBe(true);
          expect(opensslTakes(folder, { publicKey, message: randomBytes(8), signature }, options)).toBe(false);
        }
      }
    },
  );

  test.each(['RSAES_OAEP_SHA_256', 'RSAES_OAEP_SHA_1'] as const)(
    '%s: what the openssl program encrypted with what getPublicKey gave opens in the token',
    async (algorithm) => {
      using folder = new TempFolder();
      await using rig = await TokenRig.make();
      const kms = await rig.client();
      const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' });
      writeFileSync(folder.join('public.pem'), (await kms.getPublicKey({ keyId })).publicKey);
      const hash = algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256';
      const options = ['rsa_padding_mode:oaep', `rsa_oaep_md:${hash}`, `rsa_mgf1_md:${hash}`].flatMap((option) => ['-pkeyopt', option]);
      const ciphertextBlob = execFileSync('openssl', ['pkeyutl', '-encrypt', '-pubin', '-inkey', folder.join('public.pem'), ...options], { input: 'hello' });
      expect(Buffer.from((await kms.decrypt({ keyId, ciphertextBlob, algorithm })).plaintext).toString()).toBe('hello');
    },
  );
});
