import { describe, expect, test } from 'vitest';
import { FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf } from '../kit/outcome.ts';
import { hasSoftHsm } from '../kit/softhsm.ts';

const x = Buffer.from('x');

describe.skipIf(!hasSoftHsm)('what a token that is well will not do (needs SoftHSM and gcc)', () => {
  test('a call that the token refuses is answered ERR_HSM_FAILED, and status says what the token said', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    expect(await codeOf(kms.sign({ keyId, message: x }))).toBe('no error'); // the key is proven now
    fault.begin('C_Sign', 0x200);
    expect(await codeOf(kms.sign({ keyId, message: x }))).toBe('ERR_HSM_FAILED');
    const token = await tokenOf(kms);
    expect(token).toMatchObject({ state: 'ok', hsm: { lastError: 'C_Sign answered CKR_FUNCTION_REJECTED', recoveries: 0 } });
    expect(token?.hsm).toHaveProperty('lastErrorTime');
  });

  test('a token that has no room for another key is not taken for a sick one: its maker hears so, nothing is recovered, and others go on', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const [kms, other] = [await rig.client(), await rig.client()];
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const make = (): Promise<unknown> => kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    fault.begin('C_GenerateKeyPair', 0x31);
    for (let left = 5; left > 0; left -= 1) {
      await expect(make()).rejects.toMatchObject({ code: 'ERR_LIMIT_EXCEEDED', details: { hint: expect.stringContaining('no room') } });
      expect(await codeOf(other.sign({ keyId, message: x }))).toBe('no error');
    }
    expect(await tokenOf(kms)).toMatchObject({ state: 'ok', hsm: { lastError: 'C_GenerateKeyPair answered CKR_DEVICE_MEMORY', recoveries: 0 } });
    fault.end();
    expect(await codeOf(make())).toBe('no error');
  });

  test('a token that has no room for a key of a session either, which looking after it takes, is not taken for a sick one', async () => {
    await using faulty = await FaultyRig.make({ overrides: { checkIntervalMs: 200 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    fault.begin('C_GenerateKey', 0x31);
    for (let left = 3; left > 0; left -= 1) {
      await expect(kms.createKey({ protectionLevel: 'HSM' })).rejects.toMatchObject({
        code: 'ERR_LIMIT_EXCEEDED',
        details: { hint: expect.stringContaining('no room') },
      });
      expect(await codeOf(kms.unlock({ token: 'hsm' }))).toBe('no error');
      expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
    }
    expect(await tokenOf(kms)).toMatchObject({ state: 'ok', hsm: { recoveries: 0 } });
    fault.end();
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
  });
});
