import { chmodSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, test } from 'vitest';
import { initVault, passphrase, serveWith, TempFolder, TestAgent } from '../kit/agent.ts';
import { ClockedAgent, hourMs, makeVault } from '../kit/clocked.ts';
import { asRoot, TestPeer } from '../kit/peer.ts';
import { Wire } from '../kit/wire.ts';

test('unlock: past one running and eight waiting attempts, ERR_BUSY with retryAfterMs', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  const attempts = await Promise.allSettled(Array.from({ length: 12 }, () => kms.unlock({ passphrase })));
  const refused = attempts.filter((attempt) => attempt.status === 'rejected');
  expect(refused).toHaveLength(3);
  for (const { reason } of refused) expect(reason).toMatchObject({ code: 'ERR_BUSY', retryable: true, details: { retryAfterMs: 1000 } });
});

test('createKeyVersion: the thousand and first version is ERR_LIMIT_EXCEEDED', async () => {
  await using agent = await TestAgent.dev();
  const kms = await agent.client();
  const { keyId } = await kms.createKey();
  for (let made = 1; made < 1000; made += 1) await kms.createKeyVersion({ keyId });
  await expect(kms.createKeyVersion({ keyId })).rejects.toMatchObject({ code: 'ERR_LIMIT_EXCEEDED' });
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyVersionCount: 1000 });
  expect(await Array.fromAsync(kms.listAllKeyVersions({ keyId, limit: 300 }))).toHaveLength(1000);
});

test('SIGTERM: what runs is answered, what waits is ERR_SHUTTING_DOWN, and the exit status is 0', async () => {
  using folder = new TempFolder();
  const agent = await serveWith(folder, { maxInFlight: 2 });
  using wire = await Wire.open(agent.socketPath);
  const requests = Array.from(
    { length: 50 },
    (_, id) => `${JSON.stringify({ jsonrpc: '2.0', id, method: 'createKey', params: { keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' } })}\n`,
  );
  wire.send(requests.join(''));
  const first = await wire.answer();
  const ended = agent.end();
  const codes = new Set([first.error?.data['code'] ?? 'ok']);
  for (let line = await wire.line(); line !== undefined; line = await wire.line())
    codes.add((JSON.parse(line) as { error?: { data: { code: string } } }).error?.data.code ?? 'ok');
  expect(await ended).toBe(0);
  expect(codes).toEqual(new Set(['ok', 'ERR_SHUTTING_DOWN']));
});

test('a restart under a client: reads, cryptography and creations go on by themselves, each creation once', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  const first = await TestAgent.serve(folder);
  const kms = await first.client();
  await kms.unlock({ passphrase });
  const { keyId } = await kms.createKey({ clientToken: 'before' });
  first.child.kill('SIGKILL');
  await new Promise((resolve) => first.child.on('exit', resolve));
  const describing = kms.status();
  await using second = await TestAgent.serve(folder);
  expect(await describing).toMatchObject({ state: 'LOCKED' });
  await kms.unlock({ passphrase });
  expect((await kms.createKey({ clientToken: 'before' })).keyId).toBe(keyId);
  expect(second.child.exitCode).toBeNull();
});

const slowKey = { keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' } as const;

test('requestTimeoutMs: what takes longer is ERR_TIMEOUT and says that it may have run', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { requestTimeoutMs: 1000 });
  const kms = await agent.client();
  const attempts = await Promise.allSettled(Array.from({ length: 64 }, () => kms.createKey(slowKey)));
  const late = attempts.filter((attempt) => attempt.status === 'rejected');
  expect(late.length).toBeGreaterThan(0);
  for (const { reason } of late)
    expect(reason).toMatchObject({ code: 'ERR_TIMEOUT', retryable: true, details: { mayHaveRun: true }, requestId: expect.any(String) });
});

test('maxConnections: one more is answered ERR_BUSY with retryAfterMs and closed, and there is room again when one goes', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { maxConnections: 2 });
  using kept = await Wire.open(agent.socketPath);
  await kept.call('status');
  {
    using refused = await Wire.open(agent.socketPath);
    expect(await refused.answer()).toMatchObject({ id: null, error: { data: { code: 'ERR_BUSY', retryAfterMs: 1000 } } });
    expect(await refused.line()).toBeUndefined();
  }
  kept.socket.destroy();
  await expect
    .poll(async () => {
      using again = await Wire.open(agent.socketPath);
      return (await again.call('status')).error?.data['code'] ?? 'ok';
    })
    .toBe('ok');
});

test('lockTimeoutMs: an agent whose requests do not end leaves with status 70, because keys are still in memory', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { lockTimeoutMs: 100 });
  using wire = await Wire.open(agent.socketPath);
  for (let id = 0; id < 64; id += 1) wire.send(`${JSON.stringify({ jsonrpc: '2.0', id, method: 'createKey', params: slowKey })}\n`);
  const ended = new Promise((resolve) => agent.child.on('exit', resolve));
  wire.send(`${JSON.stringify({ jsonrpc: '2.0', id: 'lock', method: 'lock' })}\n`);
  expect(await ended).toBe(70);
});

test('one client that pipelines thousands of requests: others are answered between them', async () => {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, {});
  const polite = await agent.client();
  const { keyId } = await polite.createKey({ keySpec: 'EC_P256' });
  using greedy = await Wire.open(agent.socketPath);
  const call = (id: number, method: string, params: object): string => `${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`;
  const [creations, signatures] = [600, 3000];
  greedy.send(Array.from({ length: creations }, (_, id) => call(id, 'createKey', {})).join(''));
  greedy.send(Array.from({ length: signatures }, (_, id) => call(id, 'sign', { keyId, message: 'aGVsbG8=' })).join(''));
  let finished = false;
  const answers = (async () => {
    for (let count = 0; count < creations + signatures; count += 1) expect((await greedy.answer()).error).toBeUndefined();
    finished = true;
  })();
  let answered = 0;
  while (!finished) {
    await polite.status();
    answered += 1;
  }
  await answers;
  expect(answered).toBeGreaterThan(20);
});

test('batches of many requests with long answers: others are answered between them, and the answers keep their order', async () => {
  await using agent = await TestAgent.dev();
  using greedy = await Wire.open(agent.socketPath);
  const polite = await agent.client();
  const [batches, size] = [4, 256];
  const call = (id: number): object => ({ jsonrpc: '2.0', id, method: 'rpc.discover' });
  const ids = Array.from({ length: batches * size }, (_, id) => id);
  let isFinished = false;
  const answers = (async () => {
    const lines: string[] = [];
    for (let sent = 0; sent < batches; sent += 1) greedy.send(`${JSON.stringify(ids.slice(sent * size, (sent + 1) * size).map(call))}\n`);
    while (lines.length < batches) lines.push((await greedy.line()) ?? '');
    isFinished = true;
    return lines;
  })();
  let answered = 0;
  for (; !isFinished; answered += 1) await polite.generateRandom({ numberOfBytes: 1 });
  expect((await answers).flatMap((line) => (JSON.parse(line) as { id: number }[]).map(({ id }) => id))).toEqual(ids);
  expect(answered).toBeGreaterThan(20); // a frame that is started or encoded at once lets two in
});

test.skipIf(process.getuid?.() !== 0)(
  'maxConnections: peers that are turned away and keep their end open hold no descriptor of the agent (needs root to count them)',
  async () => {
    using folder = new TempFolder();
    await using agent = await serveWith(folder, { maxConnections: 1 });
    const descriptors = (): number => readdirSync(`/proc/${agent.child.pid}/fd`).length;
    const before = descriptors();
    const peers = Array.from({ length: 60 }, () =>
      connect({ path: agent.socketPath, allowHalfOpen: true })
        .on('error', () => undefined)
        .resume(),
    );
    await Promise.all(peers.map((peer) => new Promise((resolve) => peer.once('end', resolve))));
    await expect.poll(descriptors).toBeLessThan(before + 5);
    for (const peer of peers) peer.destroy();
  },
);

/** Opens connections and keeps them; prints `open` for one that is answered, and else what it was told. */
const openingScript = `
$SIG{PIPE} = "IGNORE"; # one that is turned away may be closed before it has asked
use Socket; use IO::Handle; STDOUT->autoflush(1);
print "ready $$\\n";
my @kept;
while (my $line = <STDIN>) {
  socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die $!; connect($s, pack_sockaddr_un($ARGV[0])) or die "connect: $!";
  $s->autoflush(1); print $s '{"jsonrpc":"2.0","id":1,"method":"status"}' . "\\n"; my $answer = <$s>; push @kept, $s;
  print $answer =~ /"result"/ ? 'open' : $answer =~ /(ERR_[A-Z_]+)/, "\\n";
}`;

describe.skipIf(!asRoot)('connections of other users (needs root, to be them)', () => {
  async function open(peer: TestPeer, count: number): Promise<string[]> {
    for (let opened = 0; opened < count; opened += 1) peer.say('open');
    return await Array.fromAsync({ length: count }, () => peer.line());
  }
  const outcomes = (opened: number, refused: number): string[] => [...Array<string>(opened).fill('open'), ...Array<string>(refused).fill('ERR_BUSY')];
  const startPeer = (agent: TestAgent, uid: number): Promise<TestPeer> => TestPeer.start(agent.socketPath, { uid, script: openingScript });

  test('maxConnectionsPerUid: who has so many gets no more, others do, and it gets them again when its own go', async () => {
    using folder = new TempFolder();
    chmodSync(folder.path, 0o755);
    await using agent = await serveWith(folder, { socketMode: 0o666, maxConnections: 40, maxConnectionsPerUid: 5, reservedConnections: 4 });
    await using other = await startPeer(agent, 4811);
    {
      await using greedy = await startPeer(agent, 4810);
      expect(await open(greedy, 8)).toEqual(outcomes(5, 3));
      expect(await open(other, 1)).toEqual(['open']);
    }
    const kms = await agent.client();
    await expect.poll(async () => (await kms.status()).counts?.connections).toBe(3);
    await using again = await startPeer(agent, 4810);
    expect(await open(again, 6)).toEqual(outcomes(5, 1));
    await using own = await startPeer(agent, 0);
    expect(await open(own, 20)).toEqual(outcomes(20, 0));
  });

  test('reservedConnections: however many users take all they get, root gets in and locks', async () => {
    using folder = new TempFolder();
    chmodSync(folder.path, 0o755);
    await using agent = await serveWith(folder, { socketMode: 0o666, maxConnections: 12, maxConnectionsPerUid: 6, reservedConnections: 3 });
    await using first = await startPeer(agent, 4810);
    await using second = await startPeer(agent, 4811);
    expect(await open(first, 6)).toEqual(outcomes(6, 0));
    expect(await open(second, 6)).toEqual(outcomes(2, 4)); // the ninth is that of who unlocked
    const administrator = await agent.client();
    expect(await administrator.lock()).toMatchObject({ state: 'LOCKED', counts: { connections: 10 } });
  });
});

test('unlock: wrong secrets sent in parallel are one guess, and slow down one after the other', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  const attempts = await Promise.allSettled(Array.from({ length: 9 }, (_, index) => kms.unlock({ passphrase: `guess ${index}` })));
  const hints = attempts.map((attempt) =>
    attempt.status === 'rejected' ? ((attempt.reason as { details: { hint?: string } }).details.hint ?? 'tried') : 'opened',
  );
  expect(hints.filter((hint) => hint === 'tried')).toHaveLength(1);
  expect(hints.filter((hint) => hint.startsWith('Too many'))).toHaveLength(8);
});

test('RSA pairs: made in turn, so that other work goes on beside them; ERR_BUSY for too many', async () => {
  using folder = new TempFolder();
  await makeVault(folder);
  await using agent = await ClockedAgent.start(folder, { maxGenerations: 1, maxQueuedGenerations: 2 });
  const { kms } = agent;
  const making = Array.from({ length: 6 }, () => kms.createKey({ keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }));
  const settled = Promise.allSettled(making);
  await kms.createKey({ keySpec: 'EC_P256' });
  const made = await settled;
  expect(made.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThanOrEqual(3);
  const refused = made.filter((result) => result.status === 'rejected').map(({ reason }) => reason as unknown);
  expect(refused.length).toBeGreaterThan(0);
  for (const reason of refused) expect(reason).toMatchObject({ code: 'ERR_BUSY', details: { retryAfterMs: 1000 } });
});

test('a day of very many creations: their client tokens go a hundred at a time, not all on the way of one request', async () => {
  using folder = new TempFolder();
  await makeVault(folder);
  await using agent = await ClockedAgent.start(folder, { lookIntervalMs: 3_600_000 });
  const { kms } = agent;
  await Promise.all(Array.from({ length: 250 }, (_, index) => kms.createKey({ clientToken: `token ${index}` })));
  const vault = new DatabaseSync(folder.join('vault', 'vault.db'), { readOnly: true });
  const count = (): unknown => vault.prepare("SELECT count(*) AS n FROM record WHERE kind = 'clientToken'").get()?.['n'];
  expect(count()).toBe(250);
  await agent.advance(25 * hourMs);
  await kms.createKey({ clientToken: 'the next day' });
  expect(count()).toBe(151);
  await kms.confirmClock(); // looks at once
  await expect.poll(count).toBe(51);
  vault.close();
});
