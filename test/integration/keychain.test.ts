import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { isAgentError } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { cleanEnv, repository, TempFolder } from '../kit/agent.ts';
import { hasKeyring, SecretService } from '../kit/keyring.ts';
import { hasSoftHsm, pin, TokenRig } from '../kit/softhsm.ts';

const keychain = join(repository, 'daemon/dist/os/keychain.js');

/** Runs a few lines beside the keychain module. */
function runLines(env: NodeJS.ProcessEnv, lines: string): string {
  const script = `import { Keychain } from '${keychain}';\nconst keychain = new Keychain();\n${lines}`;
  return spawnSync(process.execPath, ['--no-warnings', '--input-type=module', '-e', script], { env: cleanEnv(env), encoding: 'utf8' }).stdout;
}

describe.skipIf(!hasKeyring)('the OS keychain (needs gnome-keyring, a compiled keytar and a user with a name)', () => {
  test('what is stored is there in the next session, bytes and all; nothing is nothing; without a keychain it says so', async () => {
    using folder = new TempFolder();
    {
      await using session = await SecretService.start(folder);
      const lines = `await keychain.write('a', Buffer.from([1, 0, 255])); console.log(await keychain.read('b'));`;
      expect(runLines(session.env, lines)).toBe('undefined\n');
    }
    {
      await using session = await SecretService.start(folder);
      expect(runLines(session.env, `console.log((await keychain.read('a')).toString('hex'));`)).toBe('0100ff\n');
    }
    const refused = `await keychain.read('a').catch((error) => console.log(error.code, error.details.hint));`;
    const answer = runLines({ DBUS_SESSION_BUS_ADDRESS: 'unix:path=/nowhere' }, refused);
    expect(answer).toMatch(/^ERR_STORE_UNAVAILABLE The OS keychain cannot be used: /);
  });

  test.skipIf(!hasSoftHsm)('the PIN of a token: given once, kept in the keychain, read at the next start; without the keychain a person is asked', async () => {
    using folder = new TempFolder();
    await using session = await SecretService.start(folder);
    await using rig = await TokenRig.make({ overrides: { pin: 'keychain' }, env: session.env });
    const create = async (): Promise<string> => {
      const kms = await rig.client();
      return await kms.createKey({ protectionLevel: 'HSM' }).then(
        () => 'made',
        (error: unknown) => (isAgentError(error) ? error.code : String(error)),
      );
    };
    expect(await create()).toBe('ERR_HSM_UNAVAILABLE');
    await (await rig.client()).unlock({ token: 'hsm', pin });
    expect(await create()).toBe('made');
    await rig.restart();
    expect(await create()).toBe('made');
    await session[Symbol.asyncDispose]();
    await rig.restart();
    expect(await create()).toBe('ERR_HSM_UNAVAILABLE');
    const hsm = (await (await rig.client()).status()).providers?.find(({ name }) => name === 'hsm');
    expect(hsm?.error).toMatch(/keychain cannot be used/);
    await (await rig.client()).unlock({ token: 'hsm', pin });
    expect(await create()).toBe('made');
    expect(rig.log).toContain('could not be kept');
  });
});
