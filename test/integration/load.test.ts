import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { type AgentClient, connect, isAgentError } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { defaultSettings } from '../../daemon/src/config.ts';
import { passphrase, repository, serveWith, TempFolder, TestAgent } from '../kit/agent.ts';
import { auditRecords } from '../kit/audit.ts';
import { FaultModule } from '../kit/fault.ts';
import { asRoot, TestPeer } from '../kit/peer.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';
import { Wire, type WireResponse } from '../kit/wire.ts';

const frame = (id: number | string, method: string, params: object = {}): string => `${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`;
const codeOf = ({ error }: WireResponse): unknown => error?.data['code'] ?? 'ok';

function residentMiB(agent: TestAgent): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${agent.child.pid}/status`, 'utf8'))?.[1]) / 1024;
}

test('busy clients do not keep an agent from ending: nothing waits for shutdownTimeoutMs', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { shutdownTimeoutMs: 600_000 });
  const clients = await Promise.all(Array.from({ length: 16 }, () => connect({ socketPath: agent.socketPath, retry: false })));
  let answered = 0;
  const work = clients.map(async (kms) => {
    for (;;) {
      await kms.advanceEncrypt({ plaintext: Buffer.from('x') });
      answered += 1;
    }
  });
  const ends = work.map((loop) => loop.catch((error: unknown) => (isAgentError(error) ? error.code : error)));
  await expect.poll(() => answered, { timeout: 60_000 }).toBeGreaterThan(1000);
  expect(await agent.end()).toBe(0);
  expect([...new Set(await Promise.all(ends))].filter((code) => code !== 'ERR_SHUTTING_DOWN' && code !== 'ERR_DISCONNECTED')).toEqual([]);
});

test('peers that do not close keep no agent from ending, idle or with half a frame; what is asked is answered first', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { shutdownTimeoutMs: 600_000 });
  const idle = await Promise.all(
    Array.from({ length: 300 }, async () => {
      const socket = createConnection({ path: agent.socketPath, allowHalfOpen: true }).on('error', () => undefined);
      await once(socket, 'connect');
      return socket.resume();
    }),
  );
  idle[0]?.write('{"jsonrpc":"2.0","id":1,');
  using wire = await Wire.open(agent.socketPath);
  for (let id = 0; id < 8; id += 1) wire.send(frame(id, 'createKey', { keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }));
  const first = codeOf(await wire.answer());
  const ended = agent.end();
  const codes = new Set([first]);
  for (let count = 1; count < 8; count += 1) codes.add(codeOf(await wire.answer()));
  expect(await ended).toBe(0);
  expect([...codes].filter((code) => code !== 'ERR_SHUTTING_DOWN')).toEqual(['ok']);
  for (const socket of idle) socket.destroy();
}, 60_000);

test('signals to the agent make no caller somebody else', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, {});
  const clients = await Promise.all(Array.from({ length: 16 }, () => agent.client()));
  let signals = 0;
  const signalling = setInterval(() => {
    agent.child.kill('SIGHUP');
    signals += 1;
  }, 1);
  const ask = async (kms: AgentClient): Promise<void> => {
    while (signals < 2500) await kms.advanceEncrypt({ plaintext: Buffer.from('x') }); // whose key it is depends on the unit
  };
  const outcomes = await Promise.allSettled(clients.map(ask)).finally(() => clearInterval(signalling));
  expect(outcomes.filter(({ status }) => status === 'rejected')).toEqual([]);
}, 60_000);

test('every setting is in a test', () => {
  const tests = readdirSync(join(repository, 'test'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.test.ts'));
  const text = tests.map((name) => readFileSync(join(repository, 'test', name), 'utf8')).join('\n');
  expect(Object.keys(defaultSettings).filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual([]);
});

describe('what a connection may take, as set', () => {
  const settings = { maxFrameBytes: 262_144, maxDepth: 8, maxBatch: 3, maxInFlight: 3, maxUnreadBytes: 65_536, stalledReaderMs: 3_600_000 };
  const folder = new TempFolder();
  let agent: TestAgent;
  beforeAll(async () => {
    agent = await serveWith(folder, settings);
  });
  afterAll(async () => {
    await agent.end();
    folder[Symbol.dispose]();
  });

  test('maxFrameBytes: a frame of so many bytes is read, one more is ERR_TOO_LARGE, and answers obey it too', async () => {
    using wire = await Wire.open(agent.socketPath);
    const text = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'status' });
    expect(codeOf(await wire.ask(text.padEnd(settings.maxFrameBytes)))).toBe('ok');
    const kms = await agent.client();
    const description = 'x'.repeat(8192);
    for (let made = 0; made < 40; made += 1) await kms.createKey({ description });
    wire.send(frame(2, 'listKeys', { limit: 1000 }));
    const line = (await wire.line()) ?? '';
    expect(line.length).toBeLessThanOrEqual(settings.maxFrameBytes);
    expect((JSON.parse(line) as WireResponse).result).toHaveProperty('nextToken');
    expect(await Array.fromAsync(kms.listAllKeys())).toHaveLength(41);
    wire.send(`${text.padEnd(settings.maxFrameBytes + 1)}\n`);
    expect(codeOf(await wire.answer())).toBe('ERR_TOO_LARGE');
    expect(await wire.line()).toBeUndefined();
  });

  test('maxDepth and maxBatch: so much, and no more', async () => {
    using wire = await Wire.open(agent.socketPath);
    const nested = (depth: number): string => `{"jsonrpc":"2.0","id":1,"method":"status","params":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`;
    expect([codeOf(await wire.ask(nested(8))), codeOf(await wire.ask(nested(9)))]).toEqual(['ERR_INVALID_PARAMS', 'ERR_PARSE']);
    const batch = (length: number): string => JSON.stringify(Array.from({ length }, (_, id) => ({ jsonrpc: '2.0', id, method: 'status' })));
    wire.send(`${batch(3)}\n${batch(4)}\n`);
    const answers = [await wire.answer<WireResponse | WireResponse[]>(), await wire.answer<WireResponse | WireResponse[]>()]; // as they finish
    const [batches, others] = [answers.filter(Array.isArray), answers.filter((answer) => !Array.isArray(answer))];
    expect([batches.map(({ length }) => length), others.map((answer) => codeOf(answer as WireResponse))]).toEqual([[3], ['ERR_TOO_LARGE']]);
  });

  test('maxInFlight: never more run at a time, the agent reads no further, and everything is answered', async () => {
    using greedy = await Wire.open(agent.socketPath);
    const slow = { keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' };
    const count = 24;
    const wide = 100_000; // together more than the buffers between the two hold
    greedy.send(Array.from({ length: count }, (_, id) => `${frame(id, 'createKey', slow).trim().padEnd(wide)}\n`).join(''));
    const watcher = await agent.client();
    const seen: number[] = [];
    let isHeldBack = false;
    const answers = (async () => {
      for (let answered = 0; answered < count; answered += 1) expect(codeOf(await greedy.answer())).toBe('ok');
      return true;
    })();
    for (let isDone = false; !isDone; isDone = await Promise.race([answers, watcher.status().then(() => false)])) {
      seen.push((await watcher.status()).counts?.inFlight ?? 0);
      isHeldBack ||= greedy.socket.writableLength > 0;
    }
    expect(Math.max(...seen)).toBeLessThanOrEqual(settings.maxInFlight + 1); // and the one that asks
    expect(Math.max(...seen)).toBeGreaterThan(1);
    expect(isHeldBack).toBe(true);
  });

  test('maxUnreadBytes: the agent reads no further from who does not take its answers, stays small, and drops nothing', async () => {
    const before = residentMiB(agent);
    using stuck = await Wire.open(agent.socketPath);
    stuck.socket.pause();
    const count = 3000; // answers of more than a hundred MiB
    stuck.send(Array.from({ length: count }, (_, id) => `${frame(id, 'rpc.discover').trim().padEnd(1000)}\n`).join(''));
    using other = await Wire.open(agent.socketPath);
    for (let index = 0; index < 100; index += 1) expect(codeOf(await other.call('status'))).toBe('ok');
    expect(stuck.socket.writableLength).toBeGreaterThan(0);
    expect(residentMiB(agent) - before).toBeLessThan(80);
    stuck.socket.resume();
    for (let answered = 0; answered < count; answered += 1) expect((await stuck.line())?.slice(0, 40)).toContain('"result"');
  });
});

test('stalledReaderMs: who leaves its answers unread for so long is closed, who reads now and then is not', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { maxUnreadBytes: 65_536, stalledReaderMs: 1500 });
  const watcher = await agent.client();
  using stalled = await Wire.open(agent.socketPath);
  using slow = await Wire.open(agent.socketPath);
  for (const wire of [stalled, slow]) wire.socket.pause();
  const connected = async (): Promise<number | undefined> => (await watcher.status()).counts?.connections;
  await expect.poll(connected).toBe(4); // with the one that unlocked it; what is connected is not yet accepted
  const count = 300;
  for (const wire of [stalled, slow]) wire.send(Array.from({ length: count }, (_, id) => frame(id, 'rpc.discover')).join(''));
  const reading = setInterval(() => (slow.socket.isPaused() ? slow.socket.resume() : slow.socket.pause()), 20);
  let answered = 0;
  for (; answered < count; answered += 1) expect((await slow.line())?.slice(0, 40)).toContain('"result"');
  clearInterval(reading);
  await expect.poll(connected, { timeout: 30_000 }).toBe(3);
  slow.socket.resume();
  expect(codeOf(await slow.call('status'))).toBe('ok');
  stalled.socket.resume();
  for (answered = 0; (await stalled.line()) !== undefined; answered += 1);
  expect(answered).toBeLessThan(count);
});

test('shutdownTimeoutMs: connections whose requests run longer are closed, and what runs ends all the same before the exit', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { shutdownTimeoutMs: 100, lockTimeoutMs: 600_000 });
  using wire = await Wire.open(agent.socketPath);
  const count = 16;
  for (let id = 0; id < count; id += 1) wire.send(frame(id, 'createKey', { keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }));
  expect(codeOf(await wire.answer())).toBe('ok');
  const ended = agent.end();
  let answered = 1;
  while ((await wire.line()) !== undefined) answered += 1;
  expect(answered).toBeLessThan(count);
  expect(await ended).toBe(0);
  await using again = await TestAgent.serve(folder);
  const kms = await again.client();
  await kms.unlock({ passphrase });
  expect((await Array.fromAsync(kms.listAllKeys())).length).toBeGreaterThanOrEqual(answered + 1);
});

test.each([{ auditCheckpointRecords: 5 }, { auditCheckpointMs: 50 }])('%j: so soon the audit record is keyed', async (settings) => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { auditCheckpointRecords: 1_000_000, auditCheckpointMs: 3_600_000, ...settings });
  const kms = await agent.client();
  const checkpoints = (): number => auditRecords(folder.join('vault', 'audit')).filter(({ operation }) => operation === 'checkpoint').length;
  const before = checkpoints();
  for (let index = 0; index < 12; index += 1) await kms.generateRandom({ numberOfBytes: 1 });
  await expect.poll(checkpoints).toBeGreaterThan(before);
});

describe('many peers', () => {
  let agent: TestAgent;
  beforeAll(async () => {
    agent = await TestAgent.dev();
  });
  afterAll(() => agent.end());

  test('1,000 idle connections, half of them with half a frame: one that works beside them is answered', async () => {
    const idle = await Promise.all(Array.from({ length: 1000 }, () => Wire.open(agent.socketPath)));
    for (const [index, wire] of idle.entries()) if (index % 2 === 0) wire.send('{"jsonrpc":"2.0","id":1,');
    const kms = await agent.client();
    expect((await kms.status()).counts?.connections).toBeGreaterThan(1000);
    for (let index = 0; index < 200; index += 1) {
      const sealed = await kms.advanceEncrypt({ plaintext: new Uint8Array([index]) });
      expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(new Uint8Array([index]));
    }
    for (const wire of idle) wire[Symbol.dispose]();
    await expect.poll(async () => (await kms.status()).counts?.connections).toBeLessThan(5);
  });

  test('half a frame of almost a MiB from each of 64: the agent holds about that, and not for longer than they stay', async () => {
    const before = residentMiB(agent);
    const wires = await Promise.all(Array.from({ length: 64 }, () => Wire.open(agent.socketPath)));
    const half = Buffer.alloc(1_048_575, ' ');
    await Promise.all(wires.map((wire) => new Promise((resolve) => wire.socket.write(half, resolve))));
    const kms = await agent.client();
    expect(await kms.status()).toMatchObject({ state: 'UNLOCKED' });
    expect(residentMiB(agent) - before).toBeLessThan(64 * 6); // with what joining the pieces left behind
    await expect.poll(async () => (await kms.status()) && residentMiB(agent) - before, { timeout: 20_000 }).toBeLessThan(64 * 4); // malloc gives back whole pages only
    for (const wire of wires.slice(1)) wire[Symbol.dispose]();
    wires[0]?.send('\n');
    expect(codeOf((await wires[0]?.answer()) ?? ({} as WireResponse))).toBe('ERR_PARSE');
    wires[0]?.[Symbol.dispose]();
  });
});

test.skipIf(!asRoot)('a caller with 65,536 groups, the most there are: all of them are known (needs root, to have them)', async () => {
  using folder = new TempFolder();
  writeFileSync(folder.join('config.json'), '{}', { mode: 0o600 });
  await using agent = await TestAgent.dev();
  const kms = await agent.client();
  const { keyId } = await kms.createKey({ policy: { statements: [{ effect: 'Allow', principals: ['gid:165535'], actions: ['use'] }] } });
  const become = `$) = join(' ', 0, map { 100000 + $_ } 0 .. 65535); die "setgroups: $!" if $!; `;
  const script = `use Socket; use IO::Handle; STDOUT->autoflush(1); ${become}
    socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die $!; connect($s, pack_sockaddr_un($ARGV[0])) or die "connect: $!"; $s->autoflush(1);
    print "connected $$\\n"; while (my $line = <STDIN>) { print $s $line; my $answer = <$s>; print $answer; }`;
  await using peer = await TestPeer.start(agent.socketPath, { script });
  const groups = ((await peer.ask('whoAmI')).result?.['groups'] ?? []) as number[];
  expect([groups.length, groups.includes(165_535)]).toEqual([65_536, true]);
  expect(await peer.outcome('encrypt', { keyId, plaintext: 'aGk=' })).toBe('ok');
});

test.skipIf(!hasSoftHsm)('maxQueued: what would wait for a session beyond it is ERR_BUSY, and software keys go on (needs SoftHSM and gcc)', async () => {
  using folder = new TempFolder();
  const fault = new FaultModule(folder);
  await using rig = await TokenRig.make({ module: fault.module, env: fault.env, overrides: { sessions: 1, maxQueued: 2, timeoutMs: 5000 } });
  const kms = await rig.client();
  const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
  const software = await kms.createKey({ keySpec: 'EC_P256' });
  const message = new Uint8Array([1]);
  fault.begin('C_Sign', 'hang');
  const signing = Promise.allSettled(Array.from({ length: 8 }, () => kms.sign({ keyId, message })));
  for (let index = 0; index < 20; index += 1) await kms.assertValidSignature({ ...(await kms.sign({ keyId: software.keyId, message })), message });
  fault.end();
  const codes = (await signing).map((one) => (one.status === 'fulfilled' ? 'ok' : (one.reason as { code: string }).code));
  expect(codes.filter((code) => code === 'ERR_BUSY').length).toBeGreaterThanOrEqual(4);
  expect(codes.filter((code) => !['ok', 'ERR_BUSY', 'ERR_HSM_UNAVAILABLE'].includes(code))).toEqual([]);
});

describe('what parameters may hold', () => {
  let agent: TestAgent;
  let keyId: string;
  beforeAll(async () => {
    agent = await TestAgent.dev();
    ({ keyId } = await (await agent.client()).createKey({ aliasName: 'alias/mine' }));
  });
  afterAll(() => agent.end());

  const base64 = (bytes: number): string => Buffer.alloc(bytes).toString('base64');
  const statement = { effect: 'Allow', principals: ['*'], actions: ['use'] };
  const policyOf = (...statements: object[]): object => ({ statements });
  const times = <T>(count: number, of: T): T[] => Array.from({ length: count }, () => of);

  test.each<[string, string, (size: number) => object, number]>([
    ['plaintext', 'encrypt', (size) => ({ keyId: 'alias/mine', plaintext: base64(size) }), 65_536],
    ['aad', 'encrypt', (size) => ({ keyId: 'alias/mine', plaintext: base64(1), aad: base64(size) }), 8192],
    ['numberOfBytes', 'generateRandom', (size) => ({ numberOfBytes: size }), 1024],
    ['description', 'updateKeyDescription', (size) => ({ keyId: 'alias/mine', description: 'x'.repeat(size) }), 8192],
    ['tags', 'createKey', (size) => ({ tags: Object.fromEntries(times(size, 0).map((_, index) => [`t${index}`, ''])) }), 50],
    ['the name of a tag', 'createKey', (size) => ({ tags: { ['x'.repeat(size)]: '' } }), 128],
    ['the value of a tag', 'createKey', (size) => ({ tags: { t0: 'x'.repeat(size) } }), 256],
    ['aliasName', 'createAlias', (size) => ({ keyId: 'KEY', aliasName: `alias/${'x'.repeat(size)}` }), 250],
    ['clientToken', 'createKeyVersion', (size) => ({ keyId: 'alias/mine', clientToken: 'x'.repeat(size) }), 64],
    ['limit', 'listKeys', (size) => ({ limit: size }), 1000],
    ['statements', 'setKeyPolicy', (size) => ({ keyId: 'KEY', policy: policyOf(...times(size, statement)) }), 256],
    ['principals', 'setKeyPolicy', (size) => ({ keyId: 'KEY', policy: policyOf({ ...statement, principals: times(size, '*') }) }), 256],
    ['actions', 'setKeyPolicy', (size) => ({ keyId: 'KEY', policy: policyOf({ ...statement, actions: times(size, 'use') }) }), 128],
    ['sid', 'setKeyPolicy', (size) => ({ keyId: 'KEY', policy: policyOf({ ...statement, sid: 'x'.repeat(size) }) }), 128],
    ['perSecond', 'setKeyPolicy', (size) => ({ keyId: 'KEY', policy: policyOf({ ...statement, limits: { perSecond: size } }) }), 1_000_000],
    ['bytes of a policy', 'setKeyPolicy', (size) => ({ keyId: 'KEY', policy: policyOfBytes(size) }), 32_768],
  ])('%s of %s: so much is taken, one more is ERR_INVALID_PARAMS', async (_what, method, make, most) => {
    using wire = await Wire.open(agent.socketPath);
    const ask = async (size: number): Promise<unknown> => codeOf(await wire.ask(frame(1, method, make(size)).trim().replace('"KEY"', JSON.stringify(keyId))));
    expect([await ask(most), await ask(most + 1)]).toEqual(['ok', 'ERR_INVALID_PARAMS']);
  });

  /** A policy whose JSON has so many bytes. */
  function policyOfBytes(bytes: number): object {
    const fitting = times(8, { ...statement, principals: [`exe:/${'x'.repeat(3900)}`] });
    const rest = bytes - JSON.stringify(policyOf(...fitting, { ...statement, principals: ['exe:/'] })).length;
    return policyOf(...fitting, { ...statement, principals: [`exe:/${'x'.repeat(rest)}`] });
  }
});
