import { createCipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { createReadStream, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import type { AgentClient } from '@kms-agent/client';
import { agentIdentity, agentRecipient, decryptFile, decryptStream, encryptFile, encryptStream } from '@kms-agent/client/age';
import { Decrypter, Encrypter, Stanza } from 'age-encryption';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { collectBytes, drain, inPieces } from '../kit/streams.ts';

const chunk = 65_536;
const sealedChunk = chunk + 16;

let agent: TestAgent;
let kms: AgentClient;
beforeAll(async () => {
  agent = await TestAgent.dev();
  kms = await agent.client();
});
afterAll(() => agent.end());

const seal = (bytes: Uint8Array): Promise<Buffer> => collectBytes(encryptStream(kms, inPieces(bytes)));
const open = (bytes: Uint8Array): Promise<{ bytes: Buffer; error: unknown }> => drain(decryptStream(kms, inPieces(bytes)));
const refused = { code: 'ERR_INVALID_CIPHERTEXT' };

/** Where the payload's first chunk begins: after the header and the salt. */
const payloadStart = (sealed: Buffer): number => sealed.indexOf('\n', sealed.indexOf('\n--- ') + 1) + 1 + 16;

/** Sizes about the edges of chunks. */
const edgeSize = fc.tuple(fc.nat(3), fc.integer({ min: -18, max: 18 })).map(([chunks, more]) => Math.max(chunks * chunk + more, 0));
const pieceSizes = fc.array(fc.oneof(fc.integer({ min: 50, max: 3000 }), fc.constantFrom(chunk, sealedChunk, 200_000)), { minLength: 1, maxLength: 4 });

test('encryptStream, decryptStream: any length about the edges of chunks, in any pieces, comes back; age-encryption reads it and writes it', async () => {
  await fc.assert(
    fc.asyncProperty(edgeSize, pieceSizes, pieceSizes, async (size, sizes, otherSizes) => {
      const bytes = randomBytes(size);
      const sealed = await collectBytes(encryptStream(kms, inPieces(bytes, ...sizes)));
      expect((await collectBytes(decryptStream(kms, inPieces(sealed, ...otherSizes)))).equals(bytes)).toBe(true);
      const decrypter = new Decrypter();
      decrypter.addIdentity(agentIdentity(kms));
      expect(Buffer.from(await decrypter.decrypt(sealed)).equals(bytes)).toBe(true);
      const encrypter = new Encrypter();
      encrypter.addRecipient(agentRecipient(kms));
      expect((await open(await encrypter.encrypt(bytes))).bytes.equals(bytes)).toBe(true);
    }),
    {
      numRuns: 25,
      examples: [
        [0, [1], [1]],
        [chunk, [chunk], [sealedChunk]],
        [2 * chunk, [1000], [3000]],
      ],
    },
  );
});

test('encryptStream: a web stream and a Node stream are sources, and the header has one stanza whose body is an advance blob', async () => {
  const bytes = randomBytes(100_000);
  const web = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes);
      controller.close();
    },
  });
  const sealed = await collectBytes(encryptStream(kms, web));
  expect((await open(sealed)).bytes.equals(bytes)).toBe(true);
  const [version, stanza, ...body] = sealed.toString('latin1').split('\n');
  expect([version, stanza]).toEqual(['age-encryption.org/v1', '-> kms-agent']);
  const blob = Buffer.from(body.slice(0, 2).join(''), 'base64');
  const aad = Buffer.from('age-encryption.org/v1 kms-agent');
  expect((await kms.advanceDecrypt({ ciphertextBlob: blob, aad })).plaintext).toHaveLength(16);
  await expect(kms.advanceDecrypt({ ciphertextBlob: blob })).rejects.toMatchObject(refused);
});

test('decryptStream: a file key in a blob that was made for something else, or in another stanza, is refused', async () => {
  const sealWith = async (args: string[], aad?: Uint8Array): Promise<Uint8Array> => {
    const encrypter = new Encrypter();
    encrypter.addRecipient({
      wrapFileKey: async (plaintext) => [new Stanza(args, (await kms.advanceEncrypt({ plaintext, ...(aad ? { aad } : {}) })).ciphertextBlob)],
    });
    return await encrypter.encrypt('x');
  };
  const aad = Buffer.from('age-encryption.org/v1 kms-agent');
  expect((await open(await sealWith(['kms-agent'], aad))).error).toBeUndefined();
  for (const wrong of [sealWith(['kms-agent']), sealWith(['kms-agent'], Buffer.from('x')), sealWith(['kms-agent', 'more'], aad), sealWith(['kms'], aad)])
    expect(await open(await wrong)).toMatchObject({ bytes: Buffer.alloc(0), error: refused });
});

test('decryptStream: every byte of a small file, changed, is refused, and nothing comes out', async () => {
  const sealed = await seal(Buffer.from('attack at dawn'));
  for (let at = 0; at < sealed.length; at += 1) {
    const changed = Buffer.from(sealed);
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
    expect(await open(changed), `byte ${at}`).toMatchObject({ bytes: Buffer.alloc(0), error: refused });
  }
});

test('decryptStream: a small file cut anywhere, or with something behind it, is refused, and nothing comes out', async () => {
  const sealed = await seal(Buffer.from('attack at dawn'));
  for (let length = 0; length < sealed.length; length += 1)
    expect(await open(sealed.subarray(0, length)), `length ${length}`).toMatchObject({ bytes: Buffer.alloc(0), error: refused });
  for (const more of [1, 16, 17, 70_000]) expect(await open(Buffer.concat([sealed, Buffer.alloc(more)]))).toMatchObject({ error: refused });
});

test('decryptStream: a large file cut, reordered, with a chunk twice or left out is refused after whole authentic chunks only', async () => {
  const bytes = randomBytes(3 * chunk + 100);
  const sealed = await seal(bytes);
  const start = payloadStart(sealed);
  const head = sealed.subarray(0, start);
  const part = (number: number): Buffer => sealed.subarray(start + number * sealedChunk, start + (number + 1) * sealedChunk);
  const cuts = [0, 1, 2, 3].flatMap((number) => [-17, -16, -1, 0, 1, 15, 16, 17].map((more) => start + number * sealedChunk + more)).filter((cut) => cut > 0);
  const wrong = [
    ...cuts.map((cut) => sealed.subarray(0, cut)),
    Buffer.concat([head, part(1), part(0), part(2), part(3)]),
    Buffer.concat([head, part(0), part(2), part(1), part(3)]),
    Buffer.concat([head, part(0), part(0), part(1), part(2), part(3)]),
    Buffer.concat([head, part(0), part(1), part(3)]),
    Buffer.concat([head, part(3)]),
    Buffer.concat([sealed, part(3)]),
    Buffer.concat([(await seal(bytes)).subarray(0, start), sealed.subarray(start)]),
  ];
  for (const [index, file] of wrong.entries()) {
    const { bytes: out, error } = await open(file);
    expect(error, `case ${index}`).toMatchObject(refused);
    expect([out.length % chunk, out.equals(bytes.subarray(0, out.length))], `case ${index}`).toEqual([0, true]);
  }
});

/** Chunks of STREAM by the specification alone, with the last-chunk flag where the caller wants it. */
async function sealByHand(...chunks: readonly { bytes: Uint8Array; isLast: boolean }[]): Promise<Buffer> {
  let fileKey = new Uint8Array();
  const encrypter = new Encrypter();
  encrypter.addRecipient({
    wrapFileKey: (key) => {
      fileKey = key.slice();
      return agentRecipient(kms).wrapFileKey(key);
    },
  });
  const salt = randomBytes(16);
  const header = (await encrypter.encrypt('')).subarray(0, -32);
  const key = new Uint8Array(hkdfSync('sha256', fileKey, salt, 'payload', 32));
  const sealed = chunks.map(({ bytes, isLast }, number) => {
    const nonce = Buffer.alloc(12);
    nonce[10] = number;
    nonce[11] = isLast ? 1 : 0;
    const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
    return Buffer.concat([cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
  });
  return Buffer.concat([header, salt, ...sealed]);
}

test('decryptStream: an authentic last chunk that is empty, or a short one that is not the last, is refused (age-encryption.org/v1, Payload)', async () => {
  const [full, empty, short] = [randomBytes(chunk), new Uint8Array(), randomBytes(100)];
  expect((await open(await sealByHand({ bytes: full, isLast: false }, { bytes: short, isLast: true }))).bytes.equals(Buffer.concat([full, short]))).toBe(true);
  expect((await open(await sealByHand({ bytes: empty, isLast: true }))).error).toBeUndefined();
  expect(await open(await sealByHand({ bytes: full, isLast: false }, { bytes: empty, isLast: true }))).toMatchObject({ error: refused });
  expect(await open(await sealByHand({ bytes: short, isLast: false }))).toMatchObject({ bytes: Buffer.alloc(0), error: refused });
  expect(await open(await sealByHand({ bytes: short, isLast: false }, { bytes: short, isLast: true }))).toMatchObject({ error: refused });
});

test('decryptStream: another key, another agent, no header; and what keeps the agent from trying is said by name', async () => {
  const { keyId } = await kms.createKey({ aliasName: 'alias/files' });
  const sealed = await collectBytes(encryptStream(kms, inPieces(Buffer.from('x')), { keyId: 'alias/files' }));
  expect((await drain(decryptStream(kms, inPieces(sealed), { keyId: 'alias/default' }))).error).toMatchObject(refused);
  await using other = await TestAgent.dev();
  expect((await drain(decryptStream(await other.client(), inPieces(sealed)))).error).toMatchObject(refused);
  for (const bytes of [randomBytes(300_000), Buffer.from('age-encryption.org/v2\n'), Buffer.concat([sealed.subarray(0, 22), Buffer.alloc(200_000, 'a')])])
    expect(await open(bytes)).toMatchObject({ bytes: Buffer.alloc(0), error: refused });
  await kms.createKeyVersion({ keyId });
  expect((await open(sealed)).bytes.toString()).toBe('x');
  await kms.disableKey({ keyId });
  expect((await open(sealed)).error).toMatchObject({ code: 'ERR_KEY_DISABLED' });
  expect((await drain(encryptStream(kms, inPieces(Buffer.from('x')), { keyId: 'alias/none' }))).error).toMatchObject({ code: 'ERR_ALIAS_NOT_FOUND' });
  expect((await drain(encryptStream(kms, inPieces(Buffer.from('x')), { recipients: ['age1foo'] }))).error).toBeInstanceOf(TypeError);
});

test('agentIdentity: of two agents that may open a file each does; one that is locked says so', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using other = await TestAgent.serve(folder);
  const second = await other.client();
  await second.unlock({ passphrase });
  const encrypter = new Encrypter();
  encrypter.addRecipient(agentRecipient(kms));
  encrypter.addRecipient(agentRecipient(second));
  const sealed = await encrypter.encrypt('for both');
  for (const client of [kms, second]) expect((await collectBytes(decryptStream(client, inPieces(sealed)))).toString()).toBe('for both');
  await second.lock();
  expect((await drain(decryptStream(second, inPieces(sealed)))).error).toMatchObject({ code: 'ERR_AGENT_LOCKED' });
});

test('a source is ended when the reader stops early, and its error is passed on', async () => {
  let ended = false;
  async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) yield randomBytes(chunk);
    } finally {
      ended = true;
    }
  }
  let pieces = 0;
  for await (const _ of encryptStream(kms, source())) if (++pieces === 2) break;
  expect(ended).toBe(true);
  using folder = new TempFolder();
  writeFileSync(folder.join('file'), 'x');
  const file = createReadStream(folder.join('file'));
  expect((await drain(encryptStream(kms, file, { keyId: 'alias/none' }))).error).toMatchObject({ code: 'ERR_ALIAS_NOT_FOUND' });
  expect(file.destroyed).toBe(true);
  const failing = (async function* (): AsyncGenerator<Uint8Array, void, undefined> {
    yield randomBytes(10);
    throw new Error('the disk is gone');
  })();
  expect((await drain(encryptStream(kms, failing))).error).toMatchObject({ message: 'the disk is gone' });
});

test('encryptFile, decryptFile: whole or not there at all, 0600, never over a file unasked, with progress, ended by a signal', async () => {
  using folder = new TempFolder();
  const bytes = randomBytes(1_000_000);
  writeFileSync(folder.join('plain'), bytes);
  const seen: number[] = [];
  await encryptFile(kms, folder.join('plain'), folder.join('sealed'), { onProgress: ({ readBytes, totalBytes }) => seen.push(readBytes / totalBytes) });
  expect([seen.length > 2, seen.at(-1)]).toEqual([true, 1]);
  expect(statSync(folder.join('sealed')).mode & 0o777).toBe(0o600);
  await expect(encryptFile(kms, folder.join('plain'), folder.join('sealed'))).rejects.toMatchObject({ code: 'EEXIST' });
  await decryptFile(kms, folder.join('sealed'), folder.join('again'));
  expect(readFileSync(folder.join('again')).equals(bytes)).toBe(true);
  const sealed = readFileSync(folder.join('sealed'));
  writeFileSync(folder.join('cut'), sealed.subarray(0, 500_000));
  await expect(decryptFile(kms, folder.join('cut'), folder.join('never'))).rejects.toMatchObject(refused);
  await expect(decryptFile(kms, folder.join('cut'), folder.join('again'), { force: true })).rejects.toMatchObject(refused);
  expect(readFileSync(folder.join('again')).equals(bytes)).toBe(true);
  const stop = new AbortController();
  const stopped = decryptFile(kms, folder.join('sealed'), folder.join('never'), { signal: stop.signal, onProgress: () => stop.abort() });
  await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
  await expect(decryptFile(kms, folder.join('none'), folder.join('never'))).rejects.toMatchObject({ code: 'ENOENT' });
  expect(readdirSync(folder.path).sort()).toEqual(['again', 'cut', 'plain', 'sealed']);
  expect((await collectBytes(decryptStream(kms, createReadStream(folder.join('sealed'))))).equals(bytes)).toBe(true);
});
