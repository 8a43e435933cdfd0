import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { passphrase, TempFolder } from '../kit/agent.ts';
import { FaultModule, FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf, until } from '../kit/outcome.ts';
import { hasSoftHsm, killHelper, makeTokenProvider, pin, SoftHsm, TokenRig } from '../kit/softhsm.ts';

const x = Buffer.from('x');
/** Flags of CK_TOKEN_INFO (PKCS#11 v2.40 section 3.2). */
const [CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED] = [0x2_0000, 0x4_0000];

describe.skipIf(!hasSoftHsm)('logging in to a token (needs SoftHSM and gcc)', () => {
  test('a wrong PIN behind a keyslot of the token is tried once, whoever unlocks or locks the vault, until a person logs in', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await kms.addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase } });
    writeFileSync(rig.folder.join('credentials', 'hsm-pin'), '00000000');
    await rig.agent?.end();
    const before = fault.counts.logins;
    await rig.start(false);
    const again = await rig.client();
    await until(() => fault.counts.logins > before, 'the PIN of the credential is tried');
    await delay(2500); // the agent looks for a way in each second
    expect(await codeOf(again.unlock({}))).toBe('ERR_UNLOCK_FAILED');
    expect(await codeOf(again.unlock({}))).toBe('ERR_UNLOCK_FAILED');
    for (let turn = 0; turn < 2; turn += 1) {
      await again.unlock({ passphrase });
      await until(async () => (await tokenOf(again))?.state === 'disabled', 'the token is disabled');
      expect(await codeOf(again.createKey({ protectionLevel: 'HSM' }))).toBe('ERR_HSM_PIN_WRONG');
      await again.lock();
    }
    expect(fault.counts.logins - before).toBe(1);
    expect(`${rig.agent?.startLog}${rig.log}`.match(/nothing opens the vault without a person yet/g)).toHaveLength(1);
    expect((await again.unlock({ token: 'hsm', pin })).state).toBe('UNLOCKED');
  });

  test.each([
    ['a vendor code', 0x8000_0001, 3],
    ['CKR_GENERAL_ERROR', 0x5, 3],
    ['CKR_FUNCTION_FAILED', 0x6, 3],
    ['CKR_FUNCTION_REJECTED', 0x200, 3],
    ['CKR_USER_PIN_NOT_INITIALIZED', 0x102, 1],
    ['CKR_USER_TYPE_INVALID', 0x103, 1],
    ['CKR_PIN_INCORRECT', 0xa0, 1],
  ] as const)('a log-in that is refused with %s is tried so often and no more, over a lock and unlock, until a person logs in', async (_name, rv, tries) => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const before = fault.counts.logins;
    fault.begin('C_Login', rv);
    await killHelper(kms);
    const sealing = codeOf(kms.advanceEncrypt({ keyId, plaintext: x }));
    expect(['ERR_HSM_UNAVAILABLE', 'ERR_HSM_PIN_WRONG']).toContain(await sealing);
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled', 20_000);
    expect(fault.counts.logins - before).toBe(tries);
    await delay(1500);
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('ERR_HSM_PIN_WRONG');
    await kms.lock();
    await kms.unlock({ passphrase });
    await delay(500);
    expect(fault.counts.logins - before).toBe(tries);
    fault.end();
    await kms.unlock({ token: 'hsm', pin });
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
  });

  test.each([
    ['hangs', 'hang', false],
    ['crashes its module', 'crash', false],
    ['is answered late, for a wrong PIN', 'slow1200', true],
  ] as const)('a log-in that %s is tried three times and no more, until a person logs in', async (_name, what, isWrong) => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 800 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const before = fault.counts.logins;
    const its = isWrong ? '11111111' : pin;
    if (isWrong) rig.hsm.tool('hsm', '--change-pin', '--new-pin', its);
    fault.begin('C_Login', what);
    await killHelper(kms);
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled', 20_000);
    expect(fault.counts.logins - before).toBe(3);
    await delay(1500);
    await kms.lock();
    await kms.unlock({ passphrase });
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('ERR_HSM_PIN_WRONG');
    expect(fault.counts.logins - before).toBe(3);
    fault.end();
    await kms.unlock({ token: 'hsm', pin: its });
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
  });

  test.each([
    ['CKR_GENERAL_ERROR', 0x5],
    ['CKR_DEVICE_ERROR', 0x30],
  ] as const)(
    'a PIN that the token has not taken before is sent once, however vague the answer (%s), and whoever gave it is told that it may be wrong',
    async (_name, rv) => {
      await using faulty = await FaultyRig.make({ overrides: { pin: 'ask' } });
      const { rig, fault } = faulty;
      const kms = await rig.client();
      fault.begin('C_Login', rv);
      const typed = kms.unlock({ token: 'hsm', pin: '99999999' });
      await expect(typed).rejects.toMatchObject({ code: 'ERR_HSM_PIN_WRONG', details: { hint: expect.stringContaining('has not taken this PIN before') } });
      expect((await tokenOf(kms))?.state).toBe('disabled');
      expect((await tokenOf(kms))?.error).toContain('which may be wrong');
      await delay(2000);
      expect(fault.counts.logins).toBe(1);
      fault.end();
      await kms.unlock({ token: 'hsm', pin });
      fault.begin('C_Login', rv);
      const before = fault.counts.logins;
      expect(await codeOf(kms.unlock({ token: 'hsm', pin: '99999999' }))).toBe('ERR_HSM_PIN_WRONG'); // beside the one that works
      expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
      expect(fault.counts.logins - before).toBe(1);
    },
  );

  test.each([
    ['CKR_GENERAL_ERROR', 0x5, 1],
    ['CKR_DEVICE_ERROR', 0x30, 1],
    ['CKR_DEVICE_REMOVED', 0x32, 2],
    ['CKR_SESSION_HANDLE_INVALID', 0xb3, 2],
  ] as const)('a PIN of a credential that the token has not taken before is sent once, and once more to one that was away (%s)', async (_name, rv, times) => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    await rig.agent?.end();
    fault.begin('C_Login', rv);
    const before = fault.counts.logins;
    await rig.start();
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled');
    await delay(2000);
    await kms.lock();
    await kms.unlock({ passphrase });
    await delay(500);
    expect(fault.counts.logins - before).toBe(times);
  });

  test('a PIN is sent once more, and no more, to a token that was away, over a lock and unlock; then a wrong one is refused', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    await rig.agent?.end();
    writeFileSync(rig.folder.join('credentials', 'hsm-pin'), '00000000');
    const before = fault.counts.logins;
    fault.begin('C_Login', 0x32);
    await rig.start();
    const kms = await rig.client();
    await until(() => fault.counts.logins > before, 'the PIN is sent');
    fault.end();
    for (let turn = 0; turn < 3; turn += 1) {
      await kms.lock();
      await kms.unlock({ passphrase });
      await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled');
    }
    expect(fault.counts.logins - before).toBe(2);
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('ERR_HSM_PIN_WRONG');
  });

  test('a token that was away for a moment in the first log-in opens the vault that has a keyslot of it', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    await (await rig.client()).addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase } });
    await rig.agent?.end();
    const before = fault.counts.logins;
    fault.begin('C_Login', 0x32);
    const starting = rig.start(false);
    await until(() => fault.counts.logins > before, 'the PIN is sent');
    fault.end();
    await starting;
    const kms = await rig.client();
    await until(async () => (await kms.status()).state === 'UNLOCKED', 'the token opens the vault');
    expect(fault.counts.logins - before).toBe(2);
  });

  test('a PIN of a credential that the token has taken is tried again after a lock and unlock; one that was changed meanwhile is sent once', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token has taken the PIN');
    const unlockSick = async (): Promise<number> => {
      const before = fault.counts.logins;
      fault.begin('C_Login', 0x5);
      await kms.unlock({ passphrase });
      await until(() => fault.counts.logins > before, 'it is tried');
      return before;
    };
    await kms.lock();
    await unlockSick();
    fault.end();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'it is logged in again');
    await kms.lock();
    writeFileSync(rig.folder.join('credentials', 'hsm-pin'), '00000000');
    const before = await unlockSick();
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled', 20_000);
    expect(fault.counts.logins - before).toBe(1);
  });

  test.each([
    ['a wrong PIN', '99999999', undefined],
    ['a device that fails when it is sent the right one', pin, 0x30],
  ] as const)('%s counts as no wrong passphrase: the right one opens the vault at once', async (_name, given, rv) => {
    await using faulty = await FaultyRig.make({ overrides: { pin: 'ask' } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    if (rv) fault.begin('C_Login', rv);
    expect(await codeOf(kms.unlock({ token: 'hsm', pin: given }))).toBe('ERR_HSM_PIN_WRONG');
    expect(await codeOf(kms.unlock({ token: 'hsm', pin: given }))).toBe('ERR_UNLOCK_FAILED'); // too early
    await kms.lock();
    expect(await codeOf(kms.unlock({ passphrase }))).toBe('no error');
  });

  test('a token that is not there counts as no wrong PIN: the right one is taken at once when it is back', async () => {
    await using faulty = await FaultyRig.make({ overrides: { pin: 'ask' } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    fault.begin('C_Login', 0x32);
    expect(await codeOf(kms.unlock({ token: 'hsm', pin }))).toBe('ERR_HSM_UNAVAILABLE');
    fault.end();
    expect(await codeOf(kms.unlock({ token: 'hsm', pin }))).toBe('no error');
  });

  test('a PIN of the vault is one that its token took, and is tried three times; another token has not taken it', async () => {
    await using faulty = await FaultyRig.make({ overrides: { pin: 'vault' } });
    const { rig, fault } = faulty;
    await (await rig.client()).unlock({ token: 'hsm', pin });
    const triesAfterRestart = async (): Promise<number> => {
      await rig.agent?.end();
      const before = fault.counts.logins;
      fault.begin('C_Login', 0x5);
      await rig.start();
      const kms = await rig.client();
      await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled', 20_000);
      fault.end();
      return fault.counts.logins - before;
    };
    expect(await triesAfterRestart()).toBe(3);
    rig.replaceTokens();
    rig.setUri(`pkcs11:token=hsm;serial=${rig.hsm.serial()}`);
    expect(await triesAfterRestart()).toBe(1);
  });

  test('a PIN that C_Login took counts as taken, although what comes after it fails: one vague answer later it is tried again', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    await rig.agent?.end();
    const before = fault.counts.logins;
    fault.begin('C_GenerateKey', 0x30); // of the check
    await rig.start();
    const kms = await rig.client();
    await until(() => fault.counts.logins - before >= 2, 'it was logged in, and failed');
    fault.begin('C_GenerateKey,C_Login', 0x5); // also the check of a log-in that runs
    const at = fault.counts.logins;
    await until(() => fault.counts.logins > at, 'the answer is vague');
    fault.end();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'it is logged in again');
  });

  test('a PIN that a token took in its first log-in, after which its check fails, is sent to no other token of the label', async () => {
    using folder = new TempFolder();
    const fault = new FaultModule(folder);
    fault.begin('C_GenerateKey', 0x30);
    await using rig = await TokenRig.make({ module: fault.module, env: fault.env });
    const kms = await rig.client();
    await until(() => fault.counts.logins >= 2, 'it was logged in, and failed');
    rig.replaceTokens();
    await until(async () => (await tokenOf(kms))?.error?.includes('the one that its PIN is for') ?? false, 'another one is seen');
    const before = fault.counts.logins;
    await delay(1500);
    expect(fault.counts.logins).toBe(before);
  });

  test('a lock in the middle of a log-in counts as its failure: a PIN that the token has not taken is sent once, however often the vault is locked and unlocked', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const first = await rig.client();
    await until(async () => (await tokenOf(first))?.state === 'ok', 'the token is there'); // a log-in of before is not cut off
    await rig.agent?.end();
    writeFileSync(rig.folder.join('credentials', 'hsm-pin'), '00000000');
    const before = fault.counts.logins;
    fault.begin('C_Login', 'slow1200');
    await rig.start();
    const kms = await rig.client();
    await until(() => fault.counts.logins > before, 'the PIN is sent');
    await kms.lock();
    for (let turn = 0; turn < 3; turn += 1) {
      await kms.unlock({ passphrase });
      expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('ERR_HSM_PIN_WRONG');
      await kms.lock();
    }
    fault.end();
    expect(fault.counts.logins - before).toBe(1);
    await kms.unlock({ passphrase });
    await kms.unlock({ token: 'hsm', pin });
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
  });

  test('a PIN that was changed while the token worked: the helper that has the old one is replaced, and does not send it', async () => {
    await using faulty = await FaultyRig.make({ overrides: { pin: 'vault' } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await kms.unlock({ token: 'hsm', pin });
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const seal = (): Promise<string> => codeOf(kms.advanceEncrypt({ keyId, plaintext: x }));
    rig.hsm.tool('hsm', '--change-pin', '--new-pin', '11111111');
    await kms.unlock({ token: 'hsm', pin: '11111111' });
    const helper = (await tokenOf(kms))?.hsm?.helperPid;
    await delay(2100); // so soon after it was opened a recovery begins with the last rung
    expect(await seal()).toBe('no error');
    fault.begin('C_EncryptInit,C_GetSessionInfo', 0x32);
    const sealing = seal();
    await until(async () => (await tokenOf(kms))?.hsm?.helperPid !== helper || (await tokenOf(kms))?.state === 'disabled', 'the last rung is tried');
    fault.end();
    expect(['no error', 'ERR_HSM_UNAVAILABLE']).toContain(await sealing);
    await until(async () => (await seal()) === 'no error', 'it comes back by itself, with the new PIN');
    expect(rig.log).not.toContain('refused the PIN');
  });

  test('a module that says CKR_USER_ALREADY_LOGGED_IN has looked at no PIN: it works, and a wrong one is not kept', async () => {
    await using faulty = await FaultyRig.make({ overrides: { pin: 'vault' }, env: { KMS_FAULT_OTHER_PIN: pin } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await kms.unlock({ token: 'hsm', pin });
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const seal = (): Promise<string> => codeOf(kms.advanceEncrypt({ keyId, plaintext: x }));
    fault.begin('C_Login', 0x100);
    const wrong = kms.unlock({ token: 'hsm', pin: '99999999' }); // beside the login that works
    await expect(wrong).rejects.toMatchObject({ code: 'ERR_HSM_UNAVAILABLE', details: { hint: expect.stringContaining('looks at no PIN') } });
    await kms.lock();
    await kms.unlock({ passphrase });
    expect(await seal()).toBe('no error');
    fault.end();
    await kms.lock();
    await kms.unlock({ passphrase });
    expect(await seal()).toBe('no error'); // with the PIN that was kept
  });

  test('a PIN that opens a token because others are logged in to it is not kept', async () => {
    await using faulty = await FaultyRig.make({ overrides: { pin: 'vault' }, env: { KMS_FAULT_OTHER_PIN: pin } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    fault.begin('C_Login', 0x100);
    await kms.unlock({ token: 'hsm', pin: '99999999' });
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
    const before = fault.counts.logins;
    await kms.lock();
    await kms.unlock({ passphrase });
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'it waits for a PIN');
    expect(fault.counts.logins).toBe(before);
  });

  test('a log-in has the time of a call for itself: a slow module, whose calls are each in time, is not cut off in it', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 3000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const before = fault.counts.logins;
    fault.begin('C_OpenSession,C_Login', 'slow2000');
    await killHelper(kms);
    await until(async () => (await tokenOf(kms))?.hsm?.recoveries === 1, 'it is there again', 20_000);
    fault.end();
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
    expect(fault.counts.logins - before).toBe(1);
  });

  test('log-ins that failed before one that succeeded do not count', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const failFrom = async (): Promise<number> => {
      const before = fault.counts.logins;
      fault.begin('C_Login', 0x5);
      await killHelper(kms);
      await until(() => fault.counts.logins > before, 'it is tried');
      return before;
    };
    await failFrom();
    fault.end();
    await until(async () => (await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))) === 'no error', 'it is logged in again');
    const before = await failFrom();
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled', 20_000);
    expect(fault.counts.logins - before).toBe(3);
  });

  test('the last try of a PIN is left to a person who types it', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const before = fault.counts.logins;
    fault.addFlags(CKF_USER_PIN_FINAL_TRY);
    await killHelper(kms);
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled');
    expect((await tokenOf(kms))?.error).toContain('one try of the PIN is left');
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('ERR_HSM_UNAVAILABLE');
    await kms.lock();
    await kms.unlock({ passphrase });
    expect(await codeOf(kms.unlock({ token: 'hsm' }))).toBe('ERR_HSM_UNAVAILABLE'); // by itself, with the credential
    expect(fault.counts.logins - before).toBe(0);
    await kms.unlock({ token: 'hsm', pin });
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
    expect(fault.counts.logins - before).toBe(1);
  });

  test('a PIN that is locked is sent by nobody, and who asks hears ERR_HSM_PIN_LOCKED; so it is when the token locks it then', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const before = fault.counts.logins;
    fault.addFlags(CKF_USER_PIN_LOCKED);
    await killHelper(kms);
    await until(async () => (await tokenOf(kms))?.state === 'disabled', 'the token is disabled');
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('ERR_HSM_PIN_LOCKED');
    expect(await codeOf(kms.unlock({ token: 'hsm', pin }))).toBe('ERR_HSM_PIN_LOCKED');
    expect(fault.counts.logins - before).toBe(0);
    fault.addFlags(0);
    fault.begin('C_Login', 0xa4);
    expect(await codeOf(kms.unlock({ token: 'hsm', pin }))).toBe('ERR_HSM_PIN_LOCKED');
    await delay(1500);
    expect(fault.counts.logins - before).toBe(1);
    fault.end();
    await kms.unlock({ token: 'hsm', pin });
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
  });

  test('a device that fails in C_Login with a PIN that it has taken is asked until it is well', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token has taken the PIN');
    const before = fault.counts.logins;
    fault.begin('C_Login', 0x30);
    await killHelper(kms);
    await codeOf(kms.createKey({ protectionLevel: 'HSM' }));
    await until(() => fault.counts.logins - before > 3, 'it is asked more often than a refusal');
    fault.end();
    await until(async () => (await codeOf(kms.createKey({ protectionLevel: 'HSM' }))) === 'no error', 'it comes back by itself');
  });

  test('another token with the same label is sent no PIN, and status names both; the own one is used again when it is back', async () => {
    await using faulty = await FaultyRig.make({ overrides: { checkIntervalMs: 200 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const own = (await tokenOf(kms))?.hsm?.serial ?? '';
    const before = fault.counts.logins;
    rig.replaceTokens('hsm', '99999999');
    await until(async () => (await tokenOf(kms))?.state === 'down', 'its own token is gone');
    await delay(1500);
    expect(fault.counts.logins).toBe(before);
    await until(async () => (await tokenOf(kms))?.error?.includes(`the one that its PIN is for ${own}`) ?? false, 'status says so', 20_000);
    expect((await tokenOf(kms))?.error).toMatch(/has the serial number [0-9a-f]{16}, and/);
    expect(await codeOf(kms.unlock({ token: 'hsm', pin }))).toBe('ERR_HSM_UNAVAILABLE');
    expect(fault.counts.logins).toBe(before);
    rig.hideTokens('other');
    rig.showTokens();
    await until(async () => (await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))) === 'no error', 'its own token is back');
    expect(rig.log).toContain(`set it to pkcs11:token=hsm;serial=${own}`);
  });

  test('after a restart another token with the same label is sent no PIN; naming its serial number in the settings takes it for the other from then on', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await kms.createKey({ protectionLevel: 'HSM' });
    const own = (await tokenOf(kms))?.hsm?.serial ?? '';
    await rig.agent?.end();
    rig.replaceTokens();
    const before = fault.counts.logins;
    await rig.start();
    const again = await rig.client();
    await until(async () => (await tokenOf(again))?.error?.includes(`the one that its PIN is for ${own}`) ?? false, 'status says so');
    expect(await codeOf(again.unlock({ token: 'hsm', pin }))).toBe('ERR_HSM_UNAVAILABLE');
    expect(await codeOf(again.createKey({ protectionLevel: 'HSM' }))).toBe('ERR_HSM_UNAVAILABLE');
    expect(fault.counts.logins).toBe(before);
    const [, uri = ''] = /set its uri in the settings to (\S+) and start/.exec((await tokenOf(again))?.error ?? '') ?? [];
    rig.setUri(uri);
    await rig.restart();
    expect(await codeOf((await rig.client()).createKey({ protectionLevel: 'HSM' }))).toBe('no error');
    rig.setUri('pkcs11:token=hsm');
    await rig.restart();
    expect(await codeOf((await rig.client()).createKey({ protectionLevel: 'HSM' }))).toBe('no error');
    expect(uri).not.toContain(own);
  });

  test('a locked vault with a keyslot of a token: another token with the same label is sent no PIN, whoever asks', async () => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    await (await rig.client()).addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase } });
    await rig.agent?.end();
    rig.replaceTokens();
    const before = fault.counts.logins;
    await rig.start(false);
    const kms = await rig.client();
    expect(await codeOf(kms.unlock({}))).toBe('ERR_UNLOCK_FAILED');
    expect(await codeOf(kms.unlock({ token: 'hsm', pin }))).toBe('ERR_HSM_UNAVAILABLE');
    expect(fault.counts.logins).toBe(before);
    rig.hideTokens('other');
    rig.showTokens();
    await until(async () => (await kms.status()).state === 'UNLOCKED', 'its own token opens the vault', 20_000);
  });

  test('a locked vault without a keyslot of a token: its PIN is sent to none, because the vault alone knows to which', async () => {
    await using faulty = await FaultyRig.make({ overrides: { pin: 'ask' } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await kms.lock();
    expect(await codeOf(kms.unlock({ token: 'hsm', pin }))).toBe('ERR_UNLOCK_FAILED');
    expect(fault.counts.logins).toBe(0);
  });

  test('a vault that is opened and knows another token than the one that was logged in to meanwhile: that one is used no more', async () => {
    using folder = new TempFolder();
    const provider = makeTokenProvider(new SoftHsm(folder), 'hsm');
    await provider.ready(); // as for a keyslot that names no serial number
    const book = { read: () => undefined, save: () => undefined, serialOf: () => '0123', saveSerial: () => undefined };
    let isReady = false;
    provider.begin(book, () => {
      isReady = true;
    });
    await until(() => provider.status().error?.includes('the one that its PIN is for 0123') ?? false, 'status says so');
    expect(await codeOf(provider.ready())).toBe('ERR_HSM_UNAVAILABLE');
    expect(isReady).toBe(false);
    await provider.close();
  });

  test('a lock while a token that is another one is let go: it stays asleep', async () => {
    using folder = new TempFolder();
    const provider = makeTokenProvider(new SoftHsm(folder), 'hsm');
    await provider.ready();
    provider.begin({ read: () => undefined, save: () => undefined, serialOf: () => '0123', saveSerial: () => undefined }, () => undefined);
    await provider.lock();
    await delay(100);
    expect(provider.isAsleep).toBe(true);
    await provider.close();
  });

  test('a slip of a PIN costs others nothing: no request of theirs fails, and the helper goes on', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const helper = (await tokenOf(kms))?.hsm?.helperPid;
    const told: string[] = [];
    let running = true;
    const clients = await Promise.all(Array.from({ length: 8 }, () => rig.client()));
    const work = clients.map(async (client, index) => {
      while (running) told.push(await codeOf(index === 0 ? client.createKey({ protectionLevel: 'HSM' }) : client.advanceEncrypt({ keyId, plaintext: x })));
    });
    await delay(100);
    expect(await codeOf(kms.unlock({ token: 'hsm', pin: '99999999' }))).toBe('ERR_HSM_PIN_WRONG');
    await delay(100);
    running = false;
    await Promise.all(work);
    expect(new Set(told)).toEqual(new Set(['no error']));
    expect((await tokenOf(kms))?.hsm?.helperPid).toBe(helper);
  });

  test('unlock of a token that works, without a PIN, leaves it working with the PIN that a person gave', async () => {
    await using rig = await TokenRig.make({ overrides: { pin: 'ask' } });
    const kms = await rig.client();
    expect((await kms.unlock({ token: 'hsm', pin })).state).toBe('UNLOCKED');
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    expect(await codeOf(kms.unlock({ token: 'hsm' }))).toBe('no error');
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('no error');
    await killHelper(kms); // a new helper is given it too
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('no error');
  });

  test('two persons at once, one with a wrong PIN: each hears of the own one, and the wrong one is never kept', async () => {
    using folder = new TempFolder();
    const saved: string[] = [];
    const provider = makeTokenProvider(new SoftHsm(folder), 'hsm', {
      readPin: async () => undefined,
      savePin: async (_settings, given) => void saved.push(Buffer.from(given).toString()),
    });
    const outcomes = await Promise.all(['00000000', pin, '11111111'].map((given) => codeOf(provider.logIn(Buffer.from(given)))));
    expect(outcomes).toEqual(['ERR_HSM_PIN_WRONG', 'no error', 'ERR_HSM_PIN_WRONG']);
    expect(saved).toEqual([pin]);
    expect(provider.status().state).toBe('ok');
    await provider.close();
  });

  test('a lock does not wait for a keychain that is asked for the PIN, and what it answers later is not used', async () => {
    using folder = new TempFolder();
    const asked = [Promise.withResolvers<Uint8Array | undefined>(), Promise.withResolvers<Uint8Array | undefined>()];
    let times = 0;
    const provider = makeTokenProvider(new SoftHsm(folder), 'hsm', { readPin: async () => await asked[times++]?.promise });
    const waiting = codeOf(provider.ready());
    await until(() => times === 1, 'the keychain is asked');
    await provider.lock();
    expect(await waiting).toBe('ERR_HSM_UNAVAILABLE');
    const again = provider.ready(); // a new life asks anew, and does not wait for the old one either
    await until(() => times === 2, 'the keychain is asked again');
    asked[1]?.resolve(Buffer.from(pin));
    await again;
    const late = Buffer.from('00000000');
    asked[0]?.resolve(late);
    await until(() => late.every((byte) => byte === 0), 'the late answer is zeroed');
    expect(provider.status().state).toBe('ok');
    await provider.close();
  });
});
