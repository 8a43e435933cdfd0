import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeBlob, encodeBlobHeader } from '@kms-agent/protocol';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { agentProgram, cleanEnv, type Finished, initVault, kmsProgram, passphrase, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { Wire } from '../kit/wire.ts';

let folder: TempFolder;
let agent: TestAgent;
beforeAll(async () => {
  folder = new TempFolder();
  await initVault(folder);
  agent = await TestAgent.serve(folder);
  await (await agent.client()).unlock({ passphrase });
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const cli = (args: readonly string[], input?: string | Uint8Array): Promise<Finished> =>
  run(kmsProgram, args, { env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }), ...(input === undefined ? {} : { input: Buffer.from(input) }) });

test.each([
  [{ type: 'recovery', passphrase: 'not used for anything' }, '/passphrase'],
  [{ type: 'passphrase' }, '/passphrase'],
  [{ type: 'passphrase', passphrase: 'long enough', token: 'x' }, '/token'],
])('addKeyslot %j: what does not apply or is missing is named, before the proof is tried', async (params, path) => {
  using wire = await Wire.open(agent.socketPath);
  const answer = await wire.call('addKeyslot', { ...params, proof: { passphrase: 'wrong' } });
  expect(answer.error?.data).toMatchObject({ code: 'ERR_INVALID_PARAMS', path });
});

test.each([
  ['createKey', '{"tags":{"__proto__":"x","a":"b"}}'],
  ['listKeys', '{"filters":{"tags":{"__proto__":"x"}}}'],
  ['createKey', '{"tags":{"\\ud800":"x"}}'],
  ['createKey', '{"tags":{"a":"\\ud800"}}'],
  ['createKey', '{"__proto__":{}}'],
  ['createKey', '{"tags":{"a":"1","b\\\\":"2"}}'], // after which V8 takes the next for the same
  ['createKey', '{"tags":{"a":"1","b\\"":"2"}}'],
  ['untagKey', '{"keyId":"alias/default","tagKeys":["b\\n"]}'],
])('%s %s: refused, nothing is dropped in silence', async (method, params) => {
  using wire = await Wire.open(agent.socketPath);
  const answer = await wire.ask(`{"jsonrpc":"2.0","id":1,"method":"${method}","params":${params}}`);
  expect(answer.error?.data).toMatchObject({ code: 'ERR_INVALID_PARAMS' });
});

test('advanceDecrypt: a blob that names a version of an asymmetric key is as unknown as any other', async () => {
  const kms = await agent.client();
  const { primaryKeyVersionId } = await kms.createKey({ keySpec: 'EC_P256' });
  const ciphertextBlob = encodeBlob(encodeBlobHeader(primaryKeyVersionId), new Uint8Array(12), new Uint8Array(20));
  await expect(kms.advanceDecrypt({ ciphertextBlob })).rejects.toMatchObject({ code: 'ERR_INVALID_CIPHERTEXT' });
});

test('encrypt: what is wrong whatever the key is said before the key is looked for', async () => {
  const kms = await agent.client();
  const plaintext = new Uint8Array(1);
  const raw = kms.encrypt({ keyId: 'alias/none', plaintext, aad: new TextEncoder().encode('kms') });
  await expect(raw).rejects.toMatchObject({ code: 'ERR_INVALID_PARAMS', details: { path: '/aad' } });
  const oaep = kms.encrypt({ keyId: 'alias/none', plaintext, algorithm: 'RSAES_OAEP_SHA_256', aad: plaintext });
  await expect(oaep).rejects.toMatchObject({ code: 'ERR_INVALID_PARAMS', details: { path: '/aad' } });
});

test('lists: the token of one list is no token of another', async () => {
  const kms = await agent.client();
  for (const aliasName of ['alias/one', 'alias/two']) await kms.createKey({ aliasName });
  const { nextToken = '' } = await kms.listAliases({ limit: 1 });
  expect(nextToken).not.toBe('');
  await expect(kms.listKeys({ nextToken })).rejects.toMatchObject({ code: 'ERR_INVALID_PARAMS', details: { path: '/nextToken' } });
});

test('createAlias: the hundred and first of a key is ERR_LIMIT_EXCEEDED, so that the key can always be described', async () => {
  const kms = await agent.client();
  const { keyId } = await kms.createKey();
  for (let index = 0; index < 100; index += 1) await kms.createAlias({ keyId, aliasName: `alias/many/${index}` });
  await expect(kms.createAlias({ keyId, aliasName: 'alias/many/100' })).rejects.toMatchObject({ code: 'ERR_LIMIT_EXCEEDED' });
  expect((await kms.describeKey({ keyId })).aliases).toHaveLength(100);
});

test('serve before init: status turns to LOCKED when a vault is made; one that others can read is refused without its path', async () => {
  using fresh = new TempFolder();
  await using waiting = await TestAgent.serve(fresh);
  const kms = await waiting.client();
  expect(await kms.status()).toMatchObject({ state: 'UNINITIALIZED' });
  await initVault(fresh);
  chmodSync(fresh.join('vault'), 0o755);
  await expect(kms.unlock({ passphrase })).rejects.toSatisfy((error) => !JSON.stringify((error as { details: object }).details).includes(fresh.path));
  chmodSync(fresh.join('vault'), 0o700);
  expect(await kms.status()).toMatchObject({ state: 'LOCKED' });
  await expect(kms.listKeys()).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
});

test('serve --config: a file of any name is read', async () => {
  writeFileSync(folder.join('kms.conf'), '{"maxFrameBytes":"nonsense"}', { mode: 0o600 });
  const { code, stderr } = await run(agentProgram, [
    'serve',
    '--config',
    folder.join('kms.conf'),
    '--data-dir',
    folder.join('n'),
    '--socket',
    folder.join('n.sock'),
  ]);
  expect([code, stderr]).toEqual([2, expect.stringContaining('maxFrameBytes')]);
});

test('dev -- COMMAND: the command keeps the mask of the shell', () => {
  const umask = (...command: string[]): string =>
    spawnSync('sh', ['-c', `umask 0027; exec ${command.join(' ')}`], { env: cleanEnv(), encoding: 'utf8' }).stdout.trim();
  expect(umask(process.execPath, agentProgram, 'dev', '--', 'sh', '-c', 'umask')).toBe('0027');
});

test('kms -o: a pipe is written to, not replaced', async () => {
  const pipe = folder.join('pipe');
  spawnSync('mkfifo', [pipe]);
  const reading = run(join(import.meta.dirname, '..', 'kit', 'read-file.mjs'), [pipe]);
  expect(await cli(['random', '4', '--base64', '-o', pipe])).toMatchObject({ code: 0 });
  expect((await reading).stdout.toString()).toMatch(/^[A-Za-z0-9+/]{6}==\n$/);
  expect(statSync(pipe).isFIFO()).toBe(true);
});

test('kms encrypt --aad-file - with the input from there as well: refused, exit status 2', async () => {
  expect(await cli(['encrypt', '--aad-file', '-'], 'text')).toMatchObject({ code: 2, stderr: expect.stringContaining('read once') as string });
});

test('kms: what somebody wrote into a description forges no line', async () => {
  const kms = await agent.client();
  await kms.createKey({ description: 'a\u001b[2J\nfake row' });
  const { stdout } = await cli(['key', 'list']);
  expect(stdout.toString()).toContain('a\\u001b[2J\\u000afake row');
  expect(stdout.includes(0x1b)).toBe(false);
});

test('kms sign: a file larger than a message, read in pieces, has the signature of the whole', async () => {
  const kms = await agent.client();
  await kms.createKey({ keySpec: 'EC_P256', aliasName: 'alias/signer' });
  mkdirSync(folder.join('files'));
  writeFileSync(folder.join('files', 'large'), Buffer.alloc(3_000_000, 'x'));
  expect(await cli(['sign', '-k', 'alias/signer', folder.join('files', 'large'), '-o', folder.join('files', 'sig')])).toMatchObject({ code: 0 });
  expect(await cli(['verify', '-k', 'alias/signer', folder.join('files', 'sig'), folder.join('files', 'large')])).toMatchObject({ code: 0 });
  expect(await cli(['sign', '-k', 'alias/signer', folder.join('files', 'none')])).toMatchObject({ code: 2 });
});

test.each(['foo', '0', '-5'])('kms --timeout %s: usage, exit status 2', async (value) => {
  expect(await cli(['--timeout', value, 'status'])).toMatchObject({ code: 2 });
});
