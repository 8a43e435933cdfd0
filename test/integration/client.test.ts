import { createServer, type Server, type Socket } from 'node:net';
import { aad, connect, text } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { TempFolder } from '../kit/agent.ts';

/*
 * What a client does when its agent breaks, stalls or turns it away: a real agent does that too rarely to be asked for it,
 * so the other end here is a socket that misbehaves on purpose.
 */

interface Request {
  id: number;
  method: string;
  params: Record<string, unknown>;
}

let folder: TempFolder;
let server: Server;
let requests: Request[];
let behave: (socket: Socket, request: Request) => void;
let greet: (socket: Socket) => void;
const socketPath = (): string => folder.join('sock');

beforeEach(async () => {
  folder = new TempFolder();
  requests = [];
  behave = () => undefined;
  greet = () => undefined;
  const mine = requests;
  server = createServer((socket) => {
    socket.on('error', () => undefined);
    greet(socket);
    socket.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().split('\n').filter(Boolean)) {
        const request = JSON.parse(line) as Request;
        mine.push(request);
        behave(socket, request);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(socketPath(), resolve));
});
afterEach(() => {
  server.close();
  folder[Symbol.dispose]();
});

const drop = (socket: Socket): void => void socket.destroy();

describe('a connection that breaks', () => {
  test.each(['createKey', 'createKeyVersion'] as const)('call(%s): repeated with one and the same clientToken', async (method) => {
    behave = drop;
    const kms = await connect({ socketPath: socketPath(), timeoutMs: 1500 });
    const calling = kms.call(method, method === 'createKey' ? {} : { keyId: 'alias/x' });
    await expect(calling).rejects.toMatchObject({ details: { mayHaveRun: true } });
    const tokens = requests.map(({ params }) => params['clientToken']);
    expect(tokens.length).toBeGreaterThan(2);
    expect(new Set(tokens).size).toBe(1);
    expect(tokens[0]).toEqual(expect.any(String));
  });

  test('what may not be repeated is sent once, and the error says that it may have run', async () => {
    behave = drop;
    const kms = await connect({ socketPath: socketPath() });
    const calling = kms.createAlias({ aliasName: 'alias/x', keyId: '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f' });
    await expect(calling).rejects.toMatchObject({ code: 'ERR_DISCONNECTED', details: { mayHaveRun: true } });
    expect(requests).toHaveLength(1);
  });

  test('under many calls: each hears of it, and the process is not warned of listeners', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    process.on('warning', note);
    behave = (socket) => void (requests.length === 20 && socket.destroy());
    const kms = await connect({ socketPath: socketPath(), retry: false });
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => kms.whoAmI()));
    await new Promise((resolve) => setImmediate(resolve)); // warnings come a turn later
    process.off('warning', note);
    expect(outcomes.map((outcome) => outcome.status === 'rejected' && (outcome.reason as { code: string }).code)).toEqual(Array(20).fill('ERR_DISCONNECTED'));
    expect(warnings).toEqual([]);
  });

  test('an agent that is gone for good after it got the request: the error says that it may have run, and its cause is what the last attempt met', async () => {
    behave = (socket) => {
      server.close();
      socket.destroy();
    };
    const kms = await connect({ socketPath: socketPath(), timeoutMs: 1000 });
    await expect(kms.createKey()).rejects.toMatchObject({ code: 'ERR_TIMEOUT', details: { mayHaveRun: true }, cause: { code: 'ERR_UNREACHABLE' } });
  });

  test('an agent that breaks the connection five times: the call goes on', async () => {
    behave = (socket, { id }) => {
      if (requests.length < 6) socket.destroy();
      else socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, result: { version: '1', protocolVersion: 1, state: 'LOCKED' } })}\n`);
    };
    const kms = await connect({ socketPath: socketPath() });
    expect(await kms.status()).toMatchObject({ state: 'LOCKED' });
  }, 40_000);

  test('an agent that breaks each connection: what may be what kills it is sent six times, however much time there is', async () => {
    behave = drop;
    const kms = await connect({ socketPath: socketPath(), timeoutMs: 20_000 });
    await expect(kms.status()).rejects.toMatchObject({ code: 'ERR_DISCONNECTED', details: { mayHaveRun: true } });
    expect(requests).toHaveLength(6);
  }, 40_000);

  test('an agent that is shutting down again and again: nothing ran, and the call goes on while it has time', async () => {
    const leaving = { code: 1004, message: 'leaving', data: { code: 'ERR_SHUTTING_DOWN', retryable: true, requestId: 'r' } };
    behave = (socket, { id }) => {
      const answer = requests.length < 9 ? { error: leaving } : { result: { version: '1', protocolVersion: 1, state: 'LOCKED' } };
      socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...answer })}\n`);
    };
    const kms = await connect({ socketPath: socketPath() });
    expect(await kms.status()).toMatchObject({ state: 'LOCKED' });
  }, 40_000);

  test('timeoutMs: one time for all attempts and the pauses between them', async () => {
    behave = drop;
    const kms = await connect({ socketPath: socketPath() });
    await expect(kms.describeKey({ keyId: 'alias/x' }, { timeoutMs: 300 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT', details: { mayHaveRun: true } });
    const sent = requests.length;
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(requests).toHaveLength(sent);
  });

  test('close: ends the pause between two tries, and its timer with it', async () => {
    behave = drop;
    const timers = (): number => process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length;
    const before = timers();
    const kms = await connect({ socketPath: socketPath(), timeoutMs: Number.POSITIVE_INFINITY });
    let outcome: unknown;
    void kms.status().catch((error: unknown) => (outcome = error));
    await expect.poll(() => requests.length, { timeout: 10_000 }).toBe(5); // the next pause is the longest
    await new Promise((resolve) => setTimeout(resolve, 50));
    kms.close();
    for (let turns = 0; turns < 10; turns += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(outcome).toMatchObject({ code: 'ERR_DISCONNECTED', details: { mayHaveRun: true } });
    expect(timers()).toBeLessThanOrEqual(before);
  }, 20_000);

  test('a signal: ends the wait at once, also in a pause', async () => {
    behave = drop;
    const kms = await connect({ socketPath: socketPath() });
    const controller = new AbortController();
    const reason = new Error('enough');
    const calling = kms.status({ signal: controller.signal });
    setTimeout(() => controller.abort(reason), 400); // between the attempts at 250 and 750 ms
    await expect(calling).rejects.toBe(reason);
    const sent = requests.length;
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(requests).toHaveLength(sent);
  });
});

test('more than 256 calls: the next waits here; its time and its signal hold there too, and it says that it did not run', async () => {
  const kms = await connect({ socketPath: socketPath() });
  const controller = new AbortController();
  const stuck = Array.from({ length: 256 }, () => kms.status({ timeoutMs: 1500 }).catch(() => undefined));
  const aborted = kms.status({ signal: controller.signal });
  const late = kms.status({ timeoutMs: 200 });
  const reason = new Error('enough');
  controller.abort(reason);
  await expect(aborted).rejects.toBe(reason);
  await expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT', details: { mayHaveRun: false } });
  expect(requests).toHaveLength(256);
  await Promise.all(stuck);
  behave = (socket, { id }) => void socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, result: { version: '1', protocolVersion: 1, state: 'LOCKED' } })}\n`);
  expect(await kms.status()).toMatchObject({ state: 'LOCKED' });
});

test('a connection that is turned away: ERR_BUSY with retryAfterMs, and nothing ran', async () => {
  const busy = {
    jsonrpc: '2.0',
    id: null,
    error: { code: 1402, message: 'busy', data: { code: 'ERR_BUSY', retryable: true, requestId: 'r', retryAfterMs: 1000 } },
  };
  greet = (socket) => void socket.end(`${JSON.stringify(busy)}\n`);
  const kms = await connect({ socketPath: socketPath(), retry: false });
  await expect(kms.createKey()).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_(BUSY|DISCONNECTED)$/), details: { mayHaveRun: false } });
});

test.each([0, -1, Number.NaN, 2 ** 31])('timeoutMs %s: a RangeError, and nothing is sent', async (timeoutMs) => {
  await expect(connect({ socketPath: socketPath(), timeoutMs })).rejects.toThrow(RangeError);
  const kms = await connect({ socketPath: socketPath(), timeoutMs: Number.POSITIVE_INFINITY });
  await expect(kms.status({ timeoutMs })).rejects.toThrow(RangeError);
  expect(requests).toHaveLength(0);
});

test('aad: sorted by name, numbers among them, and an unset value is a TypeError', () => {
  expect(text(aad({ b: '2', '10': 'x', '9': 'y', a: 'ü"' }))).toBe('{"10":"x","9":"y","a":"ü\\"","b":"2"}');
  expect(() => aad({ table: 'users', id: undefined } as never)).toThrow(TypeError);
});
