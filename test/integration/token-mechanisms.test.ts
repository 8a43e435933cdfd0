import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf, until } from '../kit/outcome.ts';
import { hasSoftHsm, pin, type TokenRig } from '../kit/softhsm.ts';

const [mechanismInvalid, curveNotSupported] = [0x70, 0x140];

/** Lines of the log about requests that were refused. */
const refusals = (rig: TokenRig): string[] => rig.log.split('\n').filter((line) => line.includes('a request was refused'));

describe.skipIf(!hasSoftHsm)('mechanisms that a token does not do (needs SoftHSM and gcc)', () => {
  test('sign, encrypt, decrypt, createKey: a mechanism that the call itself is refused: ERR_UNSUPPORTED_ALGORITHM, and one line of log names it', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const ec = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const aes = await kms.createKey({ protectionLevel: 'HSM' });
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: aes.keyId, plaintext: randomBytes(8) });
    const calls = [
      ['C_SignInit', 'CKM_ECDSA', () => kms.sign({ keyId: ec.keyId, message: randomBytes(8) })],
      ['C_EncryptInit', 'CKM_AES_GCM', () => kms.advanceEncrypt({ keyId: aes.keyId, plaintext: randomBytes(8) })],
      ['C_DecryptInit', 'CKM_AES_GCM', () => kms.advanceDecrypt({ ciphertextBlob })],
      ['C_GenerateKeyPair', 'CKM_EC_KEY_PAIR_GEN', () => kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' })],
    ] as const;
    for (const [call, , request] of calls) {
      fault.begin(call, call === 'C_GenerateKeyPair' ? curveNotSupported : mechanismInvalid);
      for (let turn = 0; turn < 3; turn += 1) expect(await codeOf(request()), call).toBe('ERR_UNSUPPORTED_ALGORITHM');
      fault.end();
      expect(await codeOf(request()), call).toBe('no error');
    }
    for (const mechanism of new Set(calls.map(([, name]) => name))) expect(refusals(rig).filter((line) => line.includes(mechanism))).toHaveLength(1);
    expect(refusals(rig)).toHaveLength(3);
    expect((await kms.describeKey({ keyId: ec.keyId })).keyState).toBe('Enabled');
  });

  test('a key that was made and cannot prove itself for want of a mechanism is taken out of the token again', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const before = rig.hsm.objects('hsm');
    fault.begin('C_SignInit', mechanismInvalid);
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' }))).toBe('ERR_UNSUPPORTED_ALGORITHM');
    fault.end();
    expect(rig.hsm.objects('hsm')).toBe(before);
  });

  test('what a token was seen not to do when it was tried out: refused, and one line of log for each names the mechanism and what the token answered', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    await rig.agent?.end();
    fault.begin('C_EncryptInit,C_SignInit', mechanismInvalid, 'x01001111000000000000000'); // AES_GCM, and every signature; not the check before that
    await rig.start();
    const kms = await rig.client();
    const aes = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL' });
    fault.end();
    for (let turn = 0; turn < 3; turn += 1) {
      expect(await codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' }))).toBe('ERR_UNSUPPORTED_ALGORITHM');
      expect(await codeOf(kms.encrypt({ keyId: aes.keyId, plaintext: randomBytes(8), algorithm: 'AES_GCM' }))).toBe('ERR_UNSUPPORTED_ALGORITHM');
      expect(await codeOf(kms.encrypt({ keyId: aes.keyId, plaintext: randomBytes(8), algorithm: 'RSAES_OAEP_SHA_1' }))).toBe('ERR_UNSUPPORTED_ALGORITHM');
    }
    expect(refusals(rig)).toHaveLength(2); // what no AES key does is no token's fault
    expect(refusals(rig).join('\n')).toMatch(/CKM_ECDSA for EC_P256: .*CKR_MECHANISM_INVALID/);
    expect(refusals(rig).join('\n')).toMatch(/CKM_AES_GCM for AES_256: AES_GCM .*CKR_MECHANISM_INVALID/);
  });

  test('what a token may do, and crashes when it is tried out again: requests that do not need it are answered', async () => {
    await using faulty = await FaultyRig.make({ overrides: { checkIntervalMs: 60_000 } });
    const { rig, fault } = faulty;
    await rig.agent?.end();
    fault.begin('C_UnwrapKey', 0x5);
    await rig.start();
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is there');
    fault.begin('C_UnwrapKey', 'crash');
    await kms.unlock({ token: 'hsm', pin }); // it may be well now
    for (let turn = 0; turn < 4; turn += 1) expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
    fault.end();
    expect((await tokenOf(kms))?.hsm?.lastError).toContain('probe');
  });
});
