import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { methodNames } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import { cleanEnv, initByCommand, initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';

const asRoot = process.getuid?.() === 0 && existsSync('/usr/bin/setpriv');
const missing = '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f';

/** Parameters that pass the schemas, for keys that are there and keys that are not. */
function paramsFor(method: string, keyId: string): Record<string, unknown> {
  const version = { keyVersionId: missing };
  const all: Record<string, Record<string, unknown>> = {
    encrypt: { keyId, plaintext: 'aGk=' },
    decrypt: { keyId, ciphertextBlob: 'aGk=' },
    advanceEncrypt: { keyId, plaintext: 'aGk=' },
    advanceDecrypt: { ciphertextBlob: 'aGk=' },
    generateDataKey: { keyId },
    advanceGenerateDataKey: { keyId },
    generateDataKeyWithoutPlaintext: { keyId },
    reEncrypt: { ciphertextBlob: 'aGk=', destinationKeyId: keyId },
    sign: { keyId, message: 'aGk=' },
    verify: { keyId, message: 'aGk=', signature: 'aGk=' },
    getPublicKey: { keyId },
    generateRandom: { numberOfBytes: 1 },
    describeKey: { keyId },
    updateKeyDescription: { keyId, description: '' },
    createAlias: { keyId, aliasName: 'alias/x' },
    updateAlias: { keyId, aliasName: 'alias/x' },
    deleteAlias: { aliasName: 'alias/x' },
    createKeyVersion: { keyId },
    setPrimaryKeyVersion: { keyId, ...version },
    listKeyVersions: { keyId },
    describeKeyVersion: { keyId, ...version },
    ...Object.fromEntries(
      ['enableKey', 'disableKey', 'scheduleKeyDeletion', 'cancelKeyDeletion', 'deleteKeyMaterial', 'getParametersForImport'].map((name) => [name, { keyId }]),
    ),
    setDeletionProtection: { keyId, enabled: true },
    tagKey: { keyId, tags: { a: 'b' } },
    untagKey: { keyId, tagKeys: ['a'] },
    updateRotationPolicy: { keyId, enabled: false },
    importKeyMaterial: { keyId, encryptedKeyMaterial: 'aGk=', importToken: 'aGk=' },
    getKeyPolicy: { keyId },
    setKeyPolicy: { keyId, policy: { statements: [] } },
    explain: { method: 'encrypt', keyId },
    unlock: { passphrase: 'guess' },
    addKeyslot: { type: 'recovery', proof: { passphrase: 'guess' } },
    removeKeyslot: { keyslotId: missing, proof: { passphrase: 'guess' } },
  };
  return all[method] ?? {};
}

/** A few lines that any user can run: they send requests and print the answers. */
const script = `
const net = require('node:net');
const socket = net.connect(process.argv[1]);
let requests = ''; process.stdin.on('data', (chunk) => { requests += chunk; }); process.stdin.on('end', () => socket.end(requests));
socket.pipe(process.stdout);
`;

/** Sends frames as another user. */
function askAs(
  uid: number,
  socketPath: string,
  frames: readonly object[],
): Promise<{ id: string; error?: { message: string; data: Record<string, unknown> } }[]> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const args = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', process.execPath, '-e', script, socketPath];
  const child = spawn('setpriv', args, { stdio: ['pipe', 'pipe', 'inherit'], env: cleanEnv(), cwd: '/' });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  child.on('error', reject);
  child.on('close', () => resolve(said));
  child.stdin.end(frames.map((frame) => `${JSON.stringify(frame)}\n`).join(''));
  return promise.then((text) =>
    text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { id: string }),
  );
}

test.skipIf(!asRoot)(
  'another uid: ERR_ACCESS_DENIED for every method but those open to all, the same for what is there and what is not (needs root and setpriv)',
  async () => {
    using folder = new TempFolder();
    const { chmodSync } = await import('node:fs');
    chmodSync(folder.path, 0o755);
    const { writeFileSync } = await import('node:fs');
    writeFileSync(folder.join('config.json'), JSON.stringify({ socketMode: 0o666 }));
    await initByCommand(folder);
    await using agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
    const kms = await agent.client();
    await kms.unlock({ passphrase });
    const { keyId } = await kms.createKey();
    const open = new Set(['status', 'whoAmI', 'rpc.discover', 'generateRandom', 'explain']);
    const frames = methodNames.flatMap((method) =>
      [keyId, missing].map((id) => ({ jsonrpc: '2.0', id: `${method} ${id === missing ? 'missing' : 'there'}`, method, params: paramsFor(method, id) })),
    );
    const answers = await askAs(4711, agent.socketPath, frames);
    expect(answers).toHaveLength(frames.length);
    for (const { id, error } of answers) {
      const { requestId: _, ...data } = error?.data ?? {};
      const expected = open.has(id.split(' ')[0] ?? '') ? undefined : { code: 'ERR_ACCESS_DENIED', retryable: false };
      expect([id, error ? data : undefined]).toEqual([id, expected]);
    }
    const explained = await askAs(
      4711,
      agent.socketPath,
      [keyId, missing].map((id) => ({ jsonrpc: '2.0', id, method: 'explain', params: paramsFor('explain', id) })),
    );
    const denial = { allowed: false, rule: 'noStatement', wouldSucceed: false, blockedBy: 'ERR_ACCESS_DENIED' };
    expect(explained.map((answer) => (answer as unknown as { result: object }).result)).toEqual([denial, denial]);
    const [whoAmI] = await askAs(4711, agent.socketPath, [{ jsonrpc: '2.0', id: 1, method: 'whoAmI' }]);
    expect(whoAmI).toMatchObject({ result: { uid: 4711, gid: 4711, administrator: false } });
    const [status] = await askAs(4711, agent.socketPath, [{ jsonrpc: '2.0', id: 1, method: 'status' }]);
    expect(Object.keys((status as unknown as { result: object }).result).sort()).toEqual(['protocolVersion', 'state', 'version']);
  },
);

test('four unlock attempts: a signature beside them does not wait for them', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const [one, two] = [await agent.client(), await agent.client()];
  await one.unlock({ passphrase });
  const { keyId } = await one.createKey({ keySpec: 'EC_P256' });
  let running = 4;
  const attempts = Array.from({ length: 4 }, () =>
    two.unlock({ passphrase }).finally(() => {
      running -= 1;
    }),
  );
  let signedBeside = 0;
  while (running === 4) {
    await one.sign({ keyId, message: new Uint8Array([1]) });
    signedBeside += 1;
  }
  await Promise.all(attempts);
  expect(signedBeside).toBeGreaterThan(10); // the first attempt takes about 100 ms, in a process of its own
});
