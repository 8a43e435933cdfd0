import { setTimeout as delay } from 'node:timers/promises';
import type { AgentClient } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { TempFolder } from '../kit/agent.ts';
import { FaultModule, FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf, until } from '../kit/outcome.ts';
import { hasSoftHsm, killHelper, TokenRig } from '../kit/softhsm.ts';

const x = Buffer.from('x');

describe.skipIf(!hasSoftHsm)('calls that cost a token its helper (needs SoftHSM and gcc)', () => {
  interface Two {
    readonly fault: FaultModule;
    readonly kms: AgentClient;
    readonly sign: () => Promise<string>;
    /** Another client, whose calls do no harm. */
    readonly decrypt: () => Promise<string>;
  }

  /** Runs work again and again in so many calls side by side, until each was answered so often. @returns what they were told. */
  async function flood(calls: number, times: number, work: () => Promise<string>): Promise<string[]> {
    const loops = Array.from({ length: calls }, async () => {
      const told: string[] = [];
      while (told.length < times) told.push(await work());
      return told;
    });
    return (await Promise.all(loops)).flat();
  }

  /** Runs work again and again, one after the other, until something else has ended. @returns what it was told meanwhile. */
  async function beside(other: Promise<unknown>, work: () => Promise<string>): Promise<string[]> {
    let isRunning = true;
    void other.finally(() => {
      isRunning = false;
    });
    const told: string[] = [];
    while (isRunning) told.push(await work());
    return told;
  }

  async function withTwo(overrides: object, work: (two: Two) => Promise<void>): Promise<void> {
    await using faulty = await FaultyRig.make({ overrides: { ...overrides } });
    const { rig, fault } = faulty;
    const [kms, other] = [await rig.client(), await rig.client()];
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const aes = (await kms.createKey({ protectionLevel: 'HSM' })).keyId;
    const { ciphertextBlob } = await other.advanceEncrypt({ keyId: aes, plaintext: x });
    try {
      await work({ fault, kms, sign: () => codeOf(kms.sign({ keyId, message: x })), decrypt: () => codeOf(other.advanceDecrypt({ ciphertextBlob })) });
    } finally {
      fault.end();
    }
  }

  const recoveries = async (kms: AgentClient): Promise<number> => (await tokenOf(kms))?.hsm?.recoveries ?? Number.NaN;

  test('a call that crashes its module is repeated once, costs two helpers and no more, and is answered ERR_HSM_FAILED', async () => {
    await withTwo({}, async ({ fault, kms, sign, decrypt }) => {
      const before = await recoveries(kms);
      fault.begin('C_Sign', 'crash');
      expect(await sign()).toBe('ERR_HSM_FAILED');
      expect(await decrypt()).toBe('no error');
      expect((await recoveries(kms)) - before).toBe(2);
      fault.end();
      expect(await sign()).toBe('no error');
    });
  });

  test('what crashes the module when it is first tried out is left out, and tried again later: meanwhile the token does the rest', async () => {
    using folder = new TempFolder();
    const fault = new FaultModule(folder);
    fault.begin('C_SignInit', 'crash');
    await using rig = await TokenRig.make({ module: fault.module, env: fault.env });
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is there', 20_000);
    const pair = (): Promise<string> => codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' }));
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
    expect(await pair()).not.toBe('no error');
    fault.end();
    await until(async () => (await codeOf(kms.unlock({ token: 'hsm' }))) === 'no error' && (await pair()) === 'no error', 'it signs as well');
  });

  test('a client whose calls crash the module, again and again: the calls of another are all answered', async () => {
    await withTwo({}, async ({ fault, sign, decrypt }) => {
      fault.begin('C_Sign', 'crash');
      let running = true;
      const signed: string[] = [];
      const sick = (async () => {
        while (running) signed.push(await sign());
      })();
      const told: string[] = [];
      for (let turn = 0; turn < 6; turn += 1) {
        told.push(...(await Promise.all(Array.from({ length: 4 }, decrypt))));
        await delay(50);
      }
      running = false;
      await sick;
      expect(new Set(told)).toEqual(new Set(['no error']));
      expect(new Set(signed)).toEqual(new Set(['ERR_HSM_FAILED']));
    });
  });

  test('a call that hangs is repeated once; what was stuck behind it is free, and answered', async () => {
    await withTwo({ timeoutMs: 3000 }, async ({ fault, kms, sign, decrypt }) => {
      const before = await recoveries(kms);
      fault.begin('C_SignInit', 'hang');
      const signing = sign();
      await delay(300);
      const told = await Promise.all(Array.from({ length: 4 }, decrypt));
      expect(await signing).toBe('ERR_HSM_FAILED');
      expect(new Set(told)).toEqual(new Set(['no error']));
      await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is back');
      expect((await recoveries(kms)) - before).toBe(2);
    });
  });

  test('200 calls of a client wait for a slow token: another one has its turn between them', async () => {
    await withTwo({ timeoutMs: 10_000 }, async ({ fault, sign, decrypt }) => {
      fault.begin('C_Sign', 'slow50');
      const signing = flood(200, 1, sign);
      const told = await beside(signing, decrypt);
      expect(new Set([...told, ...(await signing)])).toEqual(new Set(['no error']));
      expect(told.length).toBeGreaterThan(10);
    });
  });

  test('16 calls in flight that crash the module cost no more helpers than two, and one that tries for all', async () => {
    await withTwo({}, async ({ fault, kms, sign }) => {
      const before = await recoveries(kms);
      fault.begin('C_Sign', 'crash');
      expect(new Set(await flood(16, 1, sign))).toEqual(new Set(['ERR_HSM_FAILED']));
      await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is back');
      expect((await recoveries(kms)) - before).toBeLessThanOrEqual(3);
      fault.end();
      expect(new Set(await flood(16, 1, sign))).toEqual(new Set(['no error']));
    });
  });

  test.each([
    ['crash', 16, 3],
    ['crash', 64, 3],
    ['hang', 16, 1],
  ] as const)('calls that %s, %d in flight all the time: the calls of another client are answered between them', async (what, calls, times) => {
    await withTwo({}, async ({ fault, sign, decrypt }) => {
      fault.begin('C_Sign', what);
      const signing = flood(calls, times, sign);
      const told = await beside(signing, decrypt);
      expect(new Set(told)).toEqual(new Set(['no error']));
      expect(new Set(await signing)).toEqual(new Set(['ERR_HSM_FAILED']));
      expect(told.length).toBeGreaterThan(calls * times);
    });
  });

  test('a helper is lost while keys wait to be made, which takes long: nobody waits for that but who makes keys', async () => {
    await withTwo({ timeoutMs: 10_000 }, async ({ fault, kms, decrypt }) => {
      fault.begin('C_GenerateKeyPair', 'slow4000');
      let ended = 0; // the first one is lost
      const make = (): Promise<string> => codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' })).finally(() => (ended += 1));
      const making = Promise.all(Array.from({ length: 3 }, make));
      await delay(300);
      const decrypting = Array.from({ length: 32 }, async () => {
        const told: string[] = [];
        while (ended < 2) {
          const code = await decrypt();
          if (ended === 1) told.push(code);
        }
        return told;
      });
      await delay(300);
      await killHelper(kms);
      const told = await Promise.all(decrypting);
      expect((await making).toSorted()).toEqual(['ERR_HSM_UNAVAILABLE', 'no error', 'no error']);
      expect(new Set(told.flat())).toEqual(new Set(['no error']));
      expect(Math.min(...told.map(({ length }) => length)), 'of one client, while the second was made').toBeGreaterThan(20);
    });
  });
});
