import { isAgentError } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { FaultyRig } from '../kit/fault.ts';
import { codeOf } from '../kit/outcome.ts';
import { hasSoftHsm } from '../kit/softhsm.ts';

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
