import { randomBytes } from 'node:crypto';
import type { AgentClient } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf } from '../kit/outcome.ts';
import { hasSoftHsm } from '../kit/softhsm.ts';

/** A blob that does not open. */
async function makeBad(kms: AgentClient, keyId: string): Promise<Uint8Array> {
  const { ciphertextBlob } = await kms.advanceEncrypt({ keyId, plaintext: Buffer.from('x') });
  const bad = Buffer.from(ciphertextBlob);
  bad[bad.length - 1] = (bad.at(-1) ?? 0) ^ 1;
  return bad;
}

describe.skipIf(!hasSoftHsm)('sessions of a token (needs SoftHSM and gcc)', () => {
  test('there are never more than the setting says, and one for changes and one for the login', async () => {
    await using faulty = await FaultyRig.make({ overrides: { sessions: 3, timeoutMs: 10_000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const bad = await makeBad(kms, keyId);
    for (let index = 0; index < 50; index += 1) expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob: bad }))).toBe('ERR_INVALID_CIPHERTEXT');
    const parallel = Array.from({ length: 30 }, (_, index) => index % 3).map(async (kind) => {
      if (kind === 0) return await codeOf(kms.createKeyVersion({ keyId }));
      return await codeOf(kind === 1 ? kms.advanceDecrypt({ ciphertextBlob: bad }) : kms.advanceEncrypt({ keyId, plaintext: randomBytes(9) }));
    });
    const outcomes = await Promise.all(parallel);
    // SoftHSM answers CKR_GENERAL_ERROR to a generation now and then when others run beside it (SoftHSMv2 573); that makes no ciphertext a good one.
    for (const outcome of outcomes.filter((_, index) => index % 3 === 0)) expect(['no error', 'ERR_HSM_UNAVAILABLE']).toContain(outcome);
    expect(new Set(outcomes.filter((_, index) => index % 3 === 1))).toEqual(new Set(['ERR_INVALID_CIPHERTEXT']));
    expect(new Set(outcomes.filter((_, index) => index % 3 === 2))).toEqual(new Set(['no error']));
    expect(fault.counts.peak).toBeLessThanOrEqual(5);
  });

  test('a token with fewer sessions than the setting is not sick for it: bad ciphertexts and bad wrappings get their own answers', async () => {
    await using faulty = await FaultyRig.make({ env: { KMS_FAULT_MAX_SESSIONS: '3' } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const bad = await makeBad(kms, keyId);
    const waiting = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL' });
    const { importToken } = await kms.getParametersForImport({ keyId: waiting.keyId, wrappingKeySpec: 'RSA_2048' });
    const importing = codeOf(kms.importKeyMaterial({ keyId: waiting.keyId, importToken, encryptedKeyMaterial: randomBytes(256) }));
    const decrypting = Array.from({ length: 40 }, () => codeOf(kms.advanceDecrypt({ ciphertextBlob: bad })));
    expect(new Set(await Promise.all(decrypting))).toEqual(new Set(['ERR_INVALID_CIPHERTEXT']));
    expect(await importing).toBe('ERR_INVALID_KEY_MATERIAL');
    for (let index = 0; index < 20; index += 1) expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob: bad }))).toBe('ERR_INVALID_CIPHERTEXT');
    expect((await tokenOf(kms))?.hsm?.recoveries).toBe(0);
    expect(fault.counts.peak).toBeLessThanOrEqual(3);
  });

  test('a good ciphertext does not wait for the verdict on bad ones that came before it', async () => {
    await using faulty = await FaultyRig.make({ overrides: { sessions: 4, timeoutMs: 20_000 } });
    const { rig, fault } = faulty;
    const [kms, good] = [await rig.client(), await rig.client()];
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId, plaintext: Buffer.from('good') });
    const bad = await makeBad(kms, keyId);
    fault.begin('C_Decrypt', 'slow20');
    let judged = 0;
    const judging = Array.from({ length: 40 }, async () => {
      expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob: bad }))).toBe('ERR_INVALID_CIPHERTEXT');
      judged += 1;
    });
    await new Promise((resolve) => setTimeout(resolve, 50)); // they are on their way
    expect(await codeOf(good.advanceDecrypt({ ciphertextBlob }))).toBe('no error');
    expect(judged).toBeLessThan(10);
    await Promise.all(judging);
  });
});
