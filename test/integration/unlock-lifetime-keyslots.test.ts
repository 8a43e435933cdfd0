import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { type KeyMetadata, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { defaultTokenSettings } from '../../daemon/src/providers/pkcs11/settings.ts';
import { agentProgram, cleanEnv, passphrase, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, hourMs, makeVault } from '../kit/clocked.ts';
import { hasKeyring, SecretService } from '../kit/keyring.ts';
import { codeOf } from '../kit/outcome.ts';
import { hasSoftHsm, pin, SoftHsm, softHsmModule } from '../kit/softhsm.ts';

const plaintext = utf8('what is kept');

let folder: TempFolder;
beforeEach(async () => {
  folder = new TempFolder();
  await makeVault(folder);
});
afterEach(() => folder[Symbol.dispose]());

/** Opens a file with a secret for a child. */
function fdOf(name: string, secret: string): number {
  writeFileSync(folder.join(name), secret, { mode: 0o600 });
  return openSync(folder.join(name), 'r');
}

/** That keys whose time is over are used again after an unlock without a secret, while unlocked and after a lock, and that it is this keyslot that does it. */
async function expectRenewal(agent: ClockedAgent, type: string, more: object = {}): Promise<void> {
  const { kms } = agent;
  const keys = await Promise.all([{}, { keySpec: 'AES_256' as const }, more].map((params) => kms.createKey({ ...params, unlockLifetime: '1h' })));
  const use = async ({ keyId }: KeyMetadata): Promise<string> => await codeOf(kms.advanceEncrypt({ keyId, plaintext }));
  const uses = async (): Promise<Set<string>> => new Set(await Promise.all(keys.map(use)));
  for (const isLocked of [false, true]) {
    await agent.advance(hourMs);
    expect(await uses()).toEqual(new Set(['ERR_AGENT_LOCKED']));
    if (isLocked) await kms.lock();
    await kms.unlock({});
    expect(await uses()).toEqual(new Set(['no error']));
    const opened = (await kms.listKeyslots()).keyslots.filter(({ lastUnlockTime }) => lastUnlockTime === new Date(agent.now.wallMs).toISOString());
    expect(opened.map((slot) => slot.type)).toEqual(isLocked ? [type] : []); // the time of an unlock while it is open is not noted
  }
}

test('a credential keyslot: unlock without a secret begins the time anew', async () => {
  const secret = randomBytes(32).toString('base64');
  const fds = [fdOf('passphrase', passphrase), fdOf('secret', secret)];
  const args = ['keyslot', 'add', 'credential', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--secret-fd', '4'];
  execFileSync(process.execPath, [agentProgram, ...args], { stdio: ['ignore', 'pipe', 'pipe', ...fds], env: cleanEnv() });
  for (const fd of fds) closeSync(fd);
  mkdirSync(folder.join('credentials'));
  writeFileSync(folder.join('credentials', 'kms-agent-root'), secret, { mode: 0o600 });
  await using agent = await ClockedAgent.start(folder, { lockOnSuspend: false }, { unlock: false, env: { CREDENTIALS_DIRECTORY: folder.join('credentials') } });
  await agent.kms.unlock({});
  await expectRenewal(agent, 'credential');
});

test.skipIf(!hasKeyring)('a keychain keyslot (needs gnome-keyring): unlock without a secret begins the time anew', async () => {
  await using session = await SecretService.start(folder);
  await using agent = await ClockedAgent.start(folder, { lockOnSuspend: false }, { env: session.env });
  await agent.kms.addKeyslot({ type: 'keychain', proof: { passphrase } });
  await expectRenewal(agent, 'keychain');
});

describe.skipIf(!hasSoftHsm)('a keyslot of a token (needs SoftHSM)', () => {
  test('unlock without a secret begins the time anew, of keys in software and in the token', async () => {
    const hsm = new SoftHsm(folder);
    hsm.initToken('hsm');
    mkdirSync(folder.join('credentials'));
    writeFileSync(folder.join('credentials', 'hsm-pin'), pin, { mode: 0o600 });
    const tokens = [{ ...defaultTokenSettings, name: 'hsm', module: softHsmModule, uri: 'pkcs11:token=hsm', pin: 'credential:hsm-pin' }];
    const env = { CREDENTIALS_DIRECTORY: folder.join('credentials'), SOFTHSM2_CONF: folder.join('softhsm.conf') };
    await using agent = await ClockedAgent.start(folder, { lockOnSuspend: false, tokens }, { env });
    await agent.kms.addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase } });
    await expectRenewal(agent, 'hsm', { protectionLevel: 'HSM' });
  });
});
