import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TestAgent } from '../kit/agent.ts';
import { Wire, type WireResponse } from '../kit/wire.ts';

let agent: TestAgent;
beforeAll(async () => {
  agent = await TestAgent.dev();
});
afterAll(() => agent.end());

const open = (): Promise<Wire> => Wire.open(agent.socketPath);
const frame = (value: unknown): string => `${JSON.stringify(value)}\n`;
const status = { jsonrpc: '2.0', id: 1, method: 'status' };

/** What an answer says, for comparison: the name of the error, or ok, and the id. */
const outcome = ({ error, id }: WireResponse): [unknown, unknown] => [error?.data['code'] ?? 'ok', id];

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

describe('envelope', () => {
  test.each([
    ['{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', 'ERR_PARSE', null],
    ['{"jsonrpc": "2.0", "method": 1, "params": "bar"}', 'ERR_INVALID_REQUEST', null],
    ['[]', 'ERR_INVALID_REQUEST', null],
    ['null', 'ERR_INVALID_REQUEST', null],
    ['0', 'ERR_INVALID_REQUEST', null],
    ['""', 'ERR_INVALID_REQUEST', null],
    ['false', 'ERR_INVALID_REQUEST', null],
    ['{}', 'ERR_INVALID_REQUEST', null],
    ['{"jsonrpc":"2.0","id":{},"method":"status"}', 'ERR_INVALID_REQUEST', null],
    ['{"jsonrpc":"2.0","id":1.5,"method":"status"}', 'ERR_INVALID_REQUEST', null],
    ['{"jsonrpc":"2.0","id":9007199254740993,"method":"status"}', 'ERR_INVALID_REQUEST', null],
    [`{"jsonrpc":"2.0","id":"${'x'.repeat(129)}","method":"status"}`, 'ERR_INVALID_REQUEST', null],
    ['{"jsonrpc":"1.0","id":1,"method":"status"}', 'ERR_INVALID_REQUEST', null],
    ['{"jsonrpc":"2.0","id":1,"method":"status","extra":1}', 'ERR_INVALID_REQUEST', null],
    ['{"jsonrpc":"2.0","id":1,"method":"status","params":"bar"}', 'ERR_INVALID_REQUEST', null],
    ['{"jsonrpc":"2.0","id":1,"method":"constructor"}', 'ERR_METHOD_NOT_FOUND', 1],
    ['{"jsonrpc":"2.0","id":1,"method":"__proto__"}', 'ERR_METHOD_NOT_FOUND', 1],
    ['{"jsonrpc":"2.0","id":"1","method":"foobar"}', 'ERR_METHOD_NOT_FOUND', '1'],
    ['{"jsonrpc":"2.0","id":1,"method":"status","params":[]}', 'ERR_INVALID_PARAMS', 1],
    ['{"jsonrpc":"2.0","id":1,"method":"status","params":[42,23]}', 'ERR_INVALID_PARAMS', 1],
    ['{"jsonrpc":"2.0","id":1,"method":"status","params":{"extra":1}}', 'ERR_INVALID_PARAMS', 1],
    ['{"jsonrpc":"2.0","id":null,"method":"status"}', 'ok', null],
    ['{"jsonrpc":"2.0","id":"","method":"status"}', 'ok', ''],
    [`${'['.repeat(33)}${']'.repeat(33)}`, 'ERR_PARSE', null],
    [`${'['.repeat(500_000)}`, 'ERR_PARSE', null],
  ])('%.60s: %s', async (text, code, id) => {
    using wire = await open();
    expect(outcome(await wire.ask(text))).toEqual([code, id]);
    expect(outcome(await wire.call('status'))).toEqual(['ok', 1]);
  });

  test('batches: to the letter of the specification', async () => {
    using wire = await open();
    const ask = async (value: unknown): Promise<WireResponse[]> => {
      wire.send(frame(value));
      return await wire.answer<WireResponse[]>();
    };
    expect((await ask([null])).map(outcome)).toEqual([['ERR_INVALID_REQUEST', null]]);
    expect((await ask([1, 2, 3])).map(outcome)).toEqual(Array.from({ length: 3 }, () => ['ERR_INVALID_REQUEST', null]));
    expect((await ask([status])).map(outcome)).toEqual([['ok', 1]]);
    const mixed = [status, { jsonrpc: '2.0', method: 'status' }, { foo: 'boo' }, { ...status, id: 5, method: 'foo.get' }, { ...status, id: '9' }];
    expect((await ask(mixed)).map(outcome)).toEqual([
      ['ok', 1],
      ['ERR_INVALID_REQUEST', null],
      ['ERR_METHOD_NOT_FOUND', 5],
      ['ok', '9'],
    ]);
    wire.send(
      frame([
        { jsonrpc: '2.0', method: 'status' },
        { jsonrpc: '2.0', method: 'nope' },
      ]),
    );
    expect(await ask(Array.from({ length: 256 }, () => status))).toHaveLength(256);
    expect(outcome(await wire.ask(JSON.stringify(Array.from({ length: 257 }, () => status))))).toEqual(['ERR_TOO_LARGE', null]);
  });

  test('batch: what does not fit into the answer is ERR_TOO_LARGE in its place', async () => {
    using wire = await open();
    wire.send(frame(Array.from({ length: 40 }, (_, id) => ({ jsonrpc: '2.0', id, method: 'rpc.discover' }))));
    const line = (await wire.line()) ?? '';
    expect(line.length).toBeLessThanOrEqual(1_048_576);
    const answers = (JSON.parse(line) as WireResponse[]).map(outcome);
    expect(answers.map(([, id]) => id)).toEqual(Array.from({ length: 40 }, (_, id) => id));
    expect(new Set(answers.map(([code]) => code))).toEqual(new Set(['ok', 'ERR_TOO_LARGE']));
  });

  test('a notification runs and gets no answer', async () => {
    using wire = await open();
    wire.send(frame({ jsonrpc: '2.0', method: 'createKey', params: { aliasName: 'alias/notified' } }));
    wire.send(frame({ jsonrpc: '2.0', method: 'createKey', params: [1] }));
    expect(outcome(await wire.ask(JSON.stringify({ ...status, id: 7 })))).toEqual(['ok', 7]);
    expect(outcome(await wire.call('describeKey', { keyId: 'alias/notified' }))).toEqual(['ok', 1]);
  });
});

describe('parameters', () => {
  test.each([
    ['encrypt', { plaintext: 'aGk' }, '/plaintext'],
    ['encrypt', { plaintext: 'aGk=', unknown: 1 }, '/unknown'],
    ['encrypt', { plaintext: '!!aGk=%%' }, '/plaintext'],
    ['encrypt', { plaintext: 'aGl=' }, '/plaintext'],
    ['encrypt', { plaintext: '' }, '/plaintext'],
    ['encrypt', { plaintext: 'aGk=', iv: 'AAAAAAAAAAAAAAAA' }, '/iv'],
    ['encrypt', { plaintext: 'aGk=', paddingMode: 'PKCS7_PADDING' }, '/paddingMode'],
    ['encrypt', { plaintext: 'aGk=', aad: 'a21zAQ==' }, '/aad'],
    ['advanceEncrypt', { plaintext: 'aGk=', keyId: 'not a key' }, '/keyId'],
    ['advanceEncrypt', { plaintext: 'aGk=', iv: 'AAAAAAAAAAAAAAAA' }, '/iv'],
    ['advanceDecrypt', { ciphertextBlob: 'aGk=', iv: 'AAAAAAAAAAAAAAAA' }, '/keyId'],
    ['generateDataKey', { numberOfBytes: 16, dataKeySpec: 'AES_128' }, '/dataKeySpec'],
    ['generateDataKey', { numberOfBytes: 1025 }, '/numberOfBytes'],
    ['createAlias', { aliasName: 'alias/a', keyId: 'alias/default' }, '/keyId'],
    ['createAlias', { aliasName: 'alias/a b', keyId: '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f' }, '/aliasName'],
    ['createKey', { keySpec: 'RSA_2048' }, '/keyUsage'],
    ['createKey', { tags: { '': 'x' } }, '/tags/'],
    ['sign', { keyId: 'alias/default', message: 'aGk=', messageType: 'DIGEST' }, '/message'],
    ['listKeys', { limit: 0 }, '/limit'],
    ['listKeys', { nextToken: 'nonsense' }, '/nextToken'],
  ])('%s %j: ERR_INVALID_PARAMS at %s', async (method, params, path) => {
    using wire = await open();
    const { error } = await wire.call(method, params);
    expect([error?.code, error?.data['code'], error?.data['path']]).toEqual([-32602, 'ERR_INVALID_PARAMS', path]);
  });

  test('invalid UTF-8: ERR_PARSE, and the connection goes on', async () => {
    using wire = await open();
    wire.send(Buffer.concat([Buffer.from('{"jsonrpc":"2.0","id":1,"method":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}\n')]));
    expect(outcome(await wire.answer())).toEqual(['ERR_PARSE', null]);
    expect(outcome(await wire.call('status'))).toEqual(['ok', 1]);
  });
});

describe('stream', () => {
  test('a frame of 1 MiB and one byte: ERR_TOO_LARGE with id null, then closed', async () => {
    using wire = await open();
    wire.send(Buffer.alloc(1_048_577, 0x20));
    expect(outcome(await wire.answer())).toEqual(['ERR_TOO_LARGE', null]);
    expect(await wire.line()).toBeUndefined();
  });

  test('a frame of exactly 1 MiB is read', async () => {
    using wire = await open();
    const text = JSON.stringify(status);
    expect(outcome(await wire.ask(text + ' '.repeat(1_048_576 - text.length)))).toEqual(['ok', 1]);
  });

  test('byte by byte, empty lines, and many in one piece: each is answered', async () => {
    using wire = await open();
    for (const byte of Buffer.from(`\n\n${frame(status)}`)) wire.send(Buffer.from([byte]));
    expect(outcome(await wire.answer())).toEqual(['ok', 1]);
    wire.send(Array.from({ length: 2000 }, (_, id) => frame({ ...status, id })).join(''));
    const ids = new Set<unknown>();
    for (let index = 0; index < 2000; index += 1) ids.add((await wire.answer()).id);
    expect(ids.size).toBe(2000);
  });

  test('a peer that half-closes after asking gets its answers', async () => {
    using wire = await open();
    wire.send(frame(status));
    wire.socket.end();
    expect(outcome(await wire.answer())).toEqual(['ok', 1]);
    expect(await wire.line()).toBeUndefined();
  });

  test('half a frame, then silence: nobody else waits', async () => {
    using silent = await open();
    silent.send('{"jsonrpc":"2.0","id":1,');
    using other = await open();
    expect(outcome(await other.call('status'))).toEqual(['ok', 1]);
  });

  test('a reader that never reads: the agent stops reading it, stays small, and serves the others', async () => {
    using stuck = await open();
    stuck.socket.pause();
    const question = frame({ jsonrpc: '2.0', id: 1, method: 'rpc.discover' }).repeat(1000);
    for (let index = 0; index < 20; index += 1) stuck.send(question);
    using other = await open();
    for (let index = 0; index < 50; index += 1) expect(outcome(await other.call('status'))).toEqual(['ok', 1]);
    expect(residentMiB(agent.child.pid ?? 0)).toBeLessThan(600);
  });

  test('1,000 connections: each is answered', async () => {
    const wires = await Promise.all(Array.from({ length: 1000 }, open));
    const answers = await Promise.all(wires.map((wire) => wire.call('status')));
    expect(answers.every(({ result }) => result?.['state'] === 'UNLOCKED')).toBe(true);
    for (const wire of wires) wire[Symbol.dispose]();
  });
});
