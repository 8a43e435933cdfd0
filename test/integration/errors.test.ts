import { mkdirSync, writeFileSync } from 'node:fs';
import { isAgentError } from '@kms-agent/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { agentProgram, initByCommand, initVault, passphrase, run, TempFolder, TestAgent } from '../kit/agent.ts';

const missing = '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f';
const bytes = new Uint8Array([1, 2, 3]);
let dev: TestAgent;
beforeAll(async () => {
  dev = await TestAgent.dev();
});
afterAll(() => dev.end());

test('a key, a version, an alias that is not there: each has its own error', async () => {
  const kms = await dev.client();
  await expect(kms.describeKey({ keyId: missing })).rejects.toMatchObject({ code: 'ERR_KEY_NOT_FOUND' });
  await expect(kms.encrypt({ keyId: 'alias/none', plaintext: bytes })).rejects.toMatchObject({ code: 'ERR_ALIAS_NOT_FOUND' });
  await expect(kms.describeKeyVersion({ keyId: 'alias/default', keyVersionId: missing })).rejects.toMatchObject({ code: 'ERR_KEY_VERSION_NOT_FOUND' });
  await expect(kms.updateAlias({ aliasName: 'alias/none', keyId: missing })).rejects.toMatchObject({ code: 'ERR_ALIAS_NOT_FOUND' });
});

test('what a key cannot do: ERR_UNSUPPORTED_OPERATION, and an algorithm it has not: ERR_UNSUPPORTED_ALGORITHM', async () => {
  const kms = await dev.client();
  const { keyId: ec } = await kms.createKey({ keySpec: 'EC_P256' });
  const { keyId: rsa } = await kms.createKey({ keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' });
  const unsupported = [
    kms.encrypt({ keyId: ec, plaintext: bytes }),
    kms.advanceEncrypt({ keyId: rsa, plaintext: bytes }),
    kms.generateDataKey({ keyId: rsa }),
    kms.sign({ keyId: rsa, message: bytes }),
    kms.getPublicKey({ keyId: 'alias/default' }),
    kms.createKey({ keySpec: 'AES_128' }),
    kms.createKey({ keySpec: 'EC_P256', keyUsage: 'ENCRYPT_DECRYPT' }),
    kms.createKey({ protectionLevel: 'HSM' }),
    kms.createKey({ origin: 'EXTERNAL' }),
    kms.createKey({ keySpec: 'EC_P256', rotationInterval: '30d' }),
    kms.updateRotationPolicy({ keyId: ec, enabled: true, rotationInterval: '30d' }),
    kms.getParametersForImport({ keyId: ec }),
    kms.deleteKeyMaterial({ keyId: ec }),
    kms.createKey({ aliasName: 'alias/service/x' }),
  ];
  for (const attempt of await Promise.allSettled(unsupported)) expect(attempt).toMatchObject({ reason: { code: 'ERR_UNSUPPORTED_OPERATION' } });
  await expect(kms.encrypt({ keyId: rsa, plaintext: bytes, aad: bytes })).rejects.toMatchObject({ code: 'ERR_INVALID_PARAMS', details: { path: '/aad' } });
  await expect(kms.encrypt({ plaintext: bytes, algorithm: 'AES_CBC' })).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED_ALGORITHM' });
  await expect(kms.sign({ keyId: ec, message: bytes, algorithm: 'RSA_PSS_SHA_256' })).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED_ALGORITHM' });
});

test('a client without an agent: ERR_UNREACHABLE; an agent that went: ERR_DISCONNECTED or ERR_UNREACHABLE', async () => {
  using folder = new TempFolder();
  const { connect } = await import('@kms-agent/client');
  await expect(connect({ socketPath: folder.join('none.sock') })).rejects.toMatchObject({ code: 'ERR_UNREACHABLE' });
  const gone = await TestAgent.dev();
  const kms = await connect({ socketPath: gone.socketPath, retry: false });
  await gone.end('SIGKILL');
  await expect(kms.status()).rejects.toSatisfy((error) => isAgentError(error, 'ERR_DISCONNECTED', 'ERR_UNREACHABLE'));
});

test('a client: an undefined field is a TypeError, and never means the default key', async () => {
  const kms = await dev.client();
  await expect(kms.advanceEncrypt({ plaintext: bytes, keyId: undefined } as never)).rejects.toThrow(TypeError);
});

test('ERR_TIMEOUT: the client gives up after its own time and says that the call may have run', async () => {
  const kms = await dev.client();
  await expect(kms.createKey({ keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }, { timeoutMs: 1 })).rejects.toMatchObject({
    code: 'ERR_TIMEOUT',
    retryable: true,
    details: { mayHaveRun: true },
  });
});

test('serve without a vault: ERR_NOT_INITIALIZED, and status says so', async () => {
  using folder = new TempFolder();
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  expect(await kms.status()).toMatchObject({ state: 'UNINITIALIZED' });
  await expect(kms.encrypt({ plaintext: bytes })).rejects.toMatchObject({ code: 'ERR_NOT_INITIALIZED' });
  await expect(kms.unlock({ passphrase })).rejects.toMatchObject({ code: 'ERR_NOT_INITIALIZED' });
});

test('lock and unlock: locked it refuses at once, a wrong secret is slowed down, the recovery code opens too', async () => {
  using folder = new TempFolder();
  const recoveryCode = await initByCommand(folder);
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  await expect(kms.encrypt({ plaintext: bytes })).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
  await expect(kms.unlock({ passphrase: 'not the passphrase' })).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED', details: { retryAfterMs: 1000 } });
  await expect(kms.unlock({ passphrase })).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
  await new Promise((resolve) => setTimeout(resolve, 1050));
  expect(await kms.unlock({ passphrase: recoveryCode.toLowerCase().replaceAll('-', ' ') })).toMatchObject({ state: 'UNLOCKED' });
  const sealed = await kms.advanceEncrypt({ plaintext: bytes });
  expect(await kms.lock()).toMatchObject({ state: 'LOCKED' });
  expect(await kms.lock()).toMatchObject({ state: 'LOCKED' });
  await expect(kms.advanceDecrypt(sealed)).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
  await kms.unlock({ passphrase });
  expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(bytes);
  agent.child.kill('SIGUSR2');
  await expect.poll(async () => (await kms.status()).state).toBe('LOCKED');
});

test('keyslots: a proof is asked, slots come and go, and the last one that a person can open stays', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  await kms.unlock({ passphrase });
  const { keyslot } = await kms.addKeyslot({ type: 'passphrase', passphrase: 'another passphrase', proof: { passphrase } });
  await kms.lock();
  await kms.unlock({ passphrase: 'another passphrase', keyslotId: keyslot.keyslotId });
  const { keyslots } = await kms.listKeyslots();
  expect(keyslots.map(({ type }) => type).sort()).toEqual(['passphrase', 'passphrase', 'recovery']);
  expect(keyslots.filter(({ lastUnlockTime }) => lastUnlockTime !== undefined)).toHaveLength(2);
  await expect(kms.addKeyslot({ type: 'recovery', proof: { passphrase: 'wrong' } })).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
  await new Promise((resolve) => setTimeout(resolve, 1050));
  const proof = { passphrase };
  const mine = keyslots.filter(({ keyslotId }) => keyslotId !== keyslot.keyslotId);
  await kms.removeKeyslot({ keyslotId: keyslot.keyslotId, proof });
  await kms.removeKeyslot({ keyslotId: mine.find(({ type }) => type === 'recovery')?.keyslotId ?? '', proof });
  await expect(kms.removeKeyslot({ keyslotId: mine.find(({ type }) => type === 'passphrase')?.keyslotId ?? '', proof })).rejects.toMatchObject({
    code: 'ERR_STATE_CONFLICT',
  });
});

test('idleLockMs: the agent locks itself when nobody uses a key', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  writeFileSync(folder.join('config.json'), JSON.stringify({ idleLockMs: 300 }));
  await using agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
  const kms = await agent.client();
  await kms.unlock({ passphrase });
  await expect.poll(async () => (await kms.status()).state, { timeout: 5000 }).toBe('LOCKED');
});

test.each([
  ['{"idleLockMs": "soon"}', 'idleLockMs'],
  ['{"nonsense": 1}', 'additional properties'],
  ['{', 'not valid'],
])('settings %s: the start stops and names it', async (text, words) => {
  using folder = new TempFolder();
  writeFileSync(folder.join('config.json'), text);
  const { code, stderr } = await run(agentProgram, [
    'serve',
    '--config',
    folder.join('config.json'),
    '--data-dir',
    folder.join('v'),
    '--socket',
    folder.join('s'),
  ]);
  expect(code).toBe(2);
  expect(stderr).toContain(words);
});

test('serve: a second agent on the same vault or socket, and a file in the place of the socket, are refused with a reason', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const second = await run(agentProgram, ['serve', '--data-dir', folder.join('vault'), '--socket', folder.join('other.sock')]);
  expect([second.code, second.stderr]).toEqual([2, expect.stringContaining('Another agent holds the vault')]);
  const same = await run(agentProgram, ['dev', '--socket', agent.socketPath]);
  expect([same.code, same.stderr]).toEqual([1, expect.stringContaining('Another agent listens')]);
  mkdirSync(folder.join('d'));
  writeFileSync(folder.join('d', 'file'), 'mine');
  const file = await run(agentProgram, ['dev', '--socket', folder.join('d', 'file')]);
  expect([file.code, file.stderr]).toEqual([1, expect.stringContaining('is not a socket')]);
});

test('serve: a socket that a killed agent left is replaced', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  const first = await TestAgent.serve(folder);
  await first.end('SIGKILL');
  await using second = await TestAgent.serve(folder);
  expect(await (await second.client()).status()).toMatchObject({ state: 'LOCKED' });
});
