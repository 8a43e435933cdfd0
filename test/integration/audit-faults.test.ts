import { execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, connect, isAgentError } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { agentProgram, initVault, passphrase, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { auditRecords } from '../kit/audit.ts';
import { canInject, injectFaults, withFaults } from '../kit/strace.ts';

const plaintext = new Uint8Array([7]);
const asRoot = process.getuid?.() === 0;

/** Milliseconds within which service is back when a fault has ended; the agent tries each second. */
const backWithinMs = 20_000;

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'ok',
    (error: unknown) => (isAgentError(error) ? error.code : String(error)),
  );
}

/** An unlocked agent whose audit record has a folder of its own, and what a client of it was told. */
class Rig implements AsyncDisposable {
  readonly folder: TempFolder;
  readonly agent: TestAgent;
  readonly kms: AgentClient;
  /** Keys whose creation was acknowledged. */
  readonly acknowledged: string[] = [];
  /** Creations that were made although their end could not be recorded. */
  doneUnrecorded = 0;

  private constructor(folder: TempFolder, agent: TestAgent, kms: AgentClient) {
    this.folder = folder;
    this.agent = agent;
    this.kms = kms;
  }

  static async start(settings: object = {}, prepare: (auditDir: string) => void = () => undefined): Promise<Rig> {
    const folder = new TempFolder();
    await initVault(folder);
    mkdirSync(folder.join('audit'), { mode: 0o700 });
    prepare(folder.join('audit'));
    const config = folder.join('config.json');
    writeFileSync(config, JSON.stringify({ auditReserveBytes: 65_536, ...settings }), { mode: 0o600 });
    const agent = await TestAgent.serve(folder, '--config', config, '--audit-dir', folder.join('audit'));
    const kms = await agent.client();
    await kms.unlock({ passphrase });
    return new Rig(folder, agent, kms);
  }

  get pid(): number {
    return this.agent.child.pid ?? 0;
  }

  audit(...names: string[]): string {
    return this.folder.join('audit', ...names);
  }

  async createKey(): Promise<string> {
    try {
      this.acknowledged.push((await this.kms.createKey()).keyId);
      return 'ok';
    } catch (error) {
      if (!isAgentError(error)) throw error;
      if (error.details.done) this.doneUnrecorded += 1;
      return error.code;
    }
  }

  /** What is asked for is refused, and how the agent is can be asked all the same. */
  async expectRefused(): Promise<void> {
    expect(await codeOf(this.kms.advanceEncrypt({ plaintext }))).toBe('ERR_AUDIT_UNAVAILABLE');
    expect(await this.createKey()).toBe('ERR_AUDIT_UNAVAILABLE');
    expect(await codeOf(this.kms.listKeys())).toBe('ERR_AUDIT_UNAVAILABLE');
    expect(await this.kms.status()).toMatchObject({ state: 'UNLOCKED', audit: { state: 'failed' } });
    expect((await this.kms.status()).warnings?.join()).toContain('The audit record cannot be written');
    expect(await this.kms.whoAmI()).toMatchObject({ uid: process.getuid?.() });
  }

  async expectBack(): Promise<void> {
    await expect.poll(() => codeOf(this.kms.advanceEncrypt({ plaintext })), { timeout: backWithinMs, interval: 100 }).toBe('ok');
    expect(await this.createKey()).toBe('ok');
  }

  /** The agent's keys are what it acknowledged, its record has the beginning and the end of each, and proves itself. */
  async expectNothingLost(): Promise<void> {
    const keys = await Array.fromAsync(this.kms.listAllKeys());
    expect(keys.length).toBe(this.acknowledged.length + this.doneUnrecorded + 1); // and the default key
    await this.agent.end();
    await expectWhole(this.folder, this.acknowledged);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent.end();
    this.folder[Symbol.dispose]();
  }
}

/** The record of a stopped agent proves itself, and holds what was acknowledged. */
async function expectWhole(folder: TempFolder, acknowledged: readonly string[]): Promise<void> {
  const args = ['audit', 'verify', '--data-dir', folder.join('vault'), '--audit-dir', folder.join('audit'), '--passphrase-fd', '3', '--json'];
  const { stdout, stderr } = await run(agentProgram, args, { secret: passphrase });
  expect(JSON.parse(stdout.toString() || '{}'), stderr).toMatchObject({ ok: true });
  const records = auditRecords(folder.join('audit')).filter(({ operation }) => operation === 'createKey');
  const ofOutcome = (outcome: string): (string | undefined)[] => records.filter((record) => record.outcome === outcome).map(({ requestId }) => requestId);
  const done = new Map(records.filter(({ outcome }) => outcome === 'done').map(({ keyId, requestId }) => [keyId, requestId]));
  const begun = new Set(ofOutcome('begun'));
  for (const keyId of acknowledged) expect(begun.has(done.get(keyId)), `key ${keyId} has its beginning and its end`).toBe(true);
  const ended = new Set([...ofOutcome('done'), ...ofOutcome('failed')]);
  for (const requestId of begun) expect(ended.has(requestId), `request ${requestId} has an end`).toBe(true);
  expect(auditRecords(folder.join('audit')).filter(({ error }) => error === 'tampered')).toEqual([]);
}

describe.skipIf(!canInject)('calls that fail under the audit record (needs root and strace)', () => {
  test.each([
    ['write', 'ENOSPC', 'batch'],
    ['write,ftruncate', 'EROFS', 'batch'],
    ['fdatasync', 'EIO', 'each'],
    ['fdatasync,ftruncate', 'EIO', 'each'],
  ] as const)('%s answers %s (auditSync %s): refused, nothing lost, and back by itself', async (calls, error, auditSync) => {
    await using rig = await Rig.start({ auditSync });
    expect(await rig.createKey()).toBe('ok');
    {
      await using _faults = await injectFaults(rig.pid, { calls, error, paths: [rig.audit('audit.jsonl'), rig.audit('reserve')] });
      await rig.expectRefused();
      await delay(1500); // so that it has tried again
      await rig.expectRefused();
    }
    await rig.expectBack();
    await rig.expectNothingLost();
  });

  test('a write that fails now and then: what was half written is cut off, and nobody is accused of it', async () => {
    await using rig = await Rig.start();
    for (let round = 0; round < 5; round += 1) {
      {
        await using _faults = await injectFaults(rig.pid, { calls: 'write', error: 'EIO', paths: [rig.audit('audit.jsonl')], when: '2' });
        await Promise.all(Array.from({ length: 4 }, () => rig.createKey()));
      }
      await rig.expectBack();
    }
    await rig.expectNothingLost();
  });

  test('while it cannot be written lock is done, and unlock is refused until it can', async () => {
    await using rig = await Rig.start();
    {
      await using _faults = await injectFaults(rig.pid, { calls: 'write', error: 'ENOSPC', paths: [rig.audit('audit.jsonl')] });
      expect(await rig.kms.lock()).toMatchObject({ state: 'LOCKED' });
      expect(await codeOf(rig.kms.unlock({ passphrase }))).toBe('ERR_AUDIT_UNAVAILABLE');
    }
    await expect.poll(() => codeOf(rig.kms.unlock({ passphrase })), { timeout: backWithinMs }).toBe('ok');
    await rig.expectBack();
    await rig.expectNothingLost();
  });

  test.each([
    ['rename', 'EIO', 'ERR_AUDIT_UNAVAILABLE'],
    ['openat', 'EIO', 'ERR_AUDIT_UNAVAILABLE'],
    ['unlink', 'EPERM', undefined],
  ])('%s answers %s when a file is full: the record goes on when it can, and the chain over it is whole', async (calls, error, expected) => {
    await using rig = await Rig.start({ auditMaxFileBytes: 4096, auditMaxTotalBytes: 65_536 });
    const work = async (): Promise<string> => await codeOf(rig.kms.advanceEncrypt({ plaintext }));
    for (let index = 0; index < 300; index += 1) expect(await work()).toBe('ok');
    const told = new Set<string>();
    {
      await using _faults = await injectFaults(rig.pid, { calls, error, ...(calls === 'unlink' ? {} : { paths: [rig.audit('audit.jsonl')] }) });
      for (let index = 0; index < 60; index += 1) told.add(await work());
      expect(await rig.kms.status()).toMatchObject({ state: 'UNLOCKED' });
    }
    expect(told).toEqual(new Set(['ok', ...(expected ? [expected] : [])]));
    await expect.poll(work, { timeout: backWithinMs }).toBe('ok');
    for (let index = 0; index < 60; index += 1) expect(await work()).toBe('ok');
    await rig.agent.end();
    await expectWhole(rig.folder, []);
  });

  test.each([
    ['mkdir', 'EACCES', 'audit'],
    ['openat', 'EACCES', 'audit/audit.lock'],
    ['openat', 'EIO', 'audit/audit.jsonl'],
    ['write', 'ENOSPC', 'audit/reserve'],
    ['fdatasync', 'EIO', 'audit/reserve'],
  ])('at the start, %s answers %s on %s: the agent does not serve, and says why', async (calls, error, name) => {
    using folder = new TempFolder();
    await initVault(folder);
    const start = TestAgent.serve(folder, '--audit-dir', folder.join('audit'), { command: withFaults({ calls, error, paths: [folder.join(name)] }) });
    await expect(start).rejects.toThrow(new RegExp(`the agent ended with 1: .*ERR_AUDIT_UNAVAILABLE: .*${error}`));
    await using agent = await TestAgent.serve(folder, '--audit-dir', folder.join('audit'));
    expect(await (await agent.client()).status()).toMatchObject({ state: 'LOCKED' });
  });
});

describe.skipIf(!asRoot)('a disk of its own under the audit record (needs root, for a tmpfs)', () => {
  const mount = (path: string, ...options: string[]): void => void execFileSync('mount', ['-t', 'tmpfs', '-o', ['mode=700', ...options].join(), 'tmpfs', path]);
  const unmount = (path: string): void => void execFileSync('umount', ['-l', path]);

  test('it fills up: the record says itself that it is full, everything is refused, and it goes on when there is room', async () => {
    await using rig = await Rig.start({}, (auditDir) => mount(auditDir, 'size=512k'));
    try {
      expect(await rig.createKey()).toBe('ok');
      execFileSync('sh', ['-c', `head -c 600000 /dev/zero > ${rig.audit('filler')} 2>/dev/null || true`]);
      await expect.poll(() => codeOf(rig.kms.listKeys()), { timeout: backWithinMs, interval: 0 }).toBe('ERR_AUDIT_UNAVAILABLE');
      await rig.expectRefused();
      expect(auditRecords(rig.audit()).at(-1)).toMatchObject({ operation: 'audit', outcome: 'failed', error: 'ENOSPC' });
      rmSync(rig.audit('filler'));
      await rig.expectBack();
      expect(auditRecords(rig.audit()).find(({ operation, outcome }) => operation === 'audit' && outcome === 'ok')?.detail?.['unrecorded']).toBeGreaterThan(0);
      await rig.expectNothingLost();
    } finally {
      unmount(rig.audit());
    }
  });

  test('a read-only file system in its place, and SIGHUP: refused, and on in the same file when it is gone', async () => {
    await using rig = await Rig.start();
    expect(await rig.createKey()).toBe('ok');
    mount(rig.audit(), 'ro');
    try {
      rig.agent.child.kill('SIGHUP');
      await expect.poll(() => codeOf(rig.kms.listKeys()), { timeout: backWithinMs }).toBe('ERR_AUDIT_UNAVAILABLE');
      await rig.expectRefused();
    } finally {
      unmount(rig.audit());
    }
    await rig.expectBack();
    await rig.expectNothingLost();
  });
});

describe('what somebody does to the files under a running agent', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await Rig.start();
  });
  afterAll(() => rig[Symbol.asyncDispose]());

  test('the file deleted, with SIGHUP and without: its records are written again', async () => {
    for (const signal of ['SIGHUP', undefined] as const) {
      expect(await rig.createKey()).toBe('ok');
      rmSync(rig.audit('audit.jsonl'));
      if (signal) rig.agent.child.kill(signal);
      await rig.expectBack();
    }
  });

  test('the folder deleted: made anew with what the open file held', async () => {
    expect(await rig.createKey()).toBe('ok');
    const rotated = auditRecords(rig.audit()).length;
    renameSync(rig.audit(), rig.folder.join('kept'));
    rmSync(rig.folder.join('kept', 'audit.jsonl'));
    await rig.expectBack();
    for (const name of execFileSync('ls', [rig.folder.join('kept')])
      .toString()
      .split('\n'))
      if (name.startsWith('audit-')) renameSync(rig.folder.join('kept', name), rig.audit(name));
    expect(auditRecords(rig.audit()).length).toBeGreaterThan(rotated);
  });

  test('moved away and SIGHUP, under load: no request is refused', async () => {
    let isRunning = true;
    const load = (async () => {
      while (isRunning) expect(await codeOf(rig.kms.advanceEncrypt({ plaintext }))).toBe('ok');
    })();
    for (let index = 1; index <= 5; index += 1) {
      const firstSeq = auditRecords(rig.audit()).at(-1)?.seq ?? 0;
      renameSync(rig.audit('audit.jsonl'), rig.audit(`audit-${String(firstSeq).padStart(12, '0')}.jsonl`));
      rig.agent.child.kill('SIGHUP');
      await expect.poll(() => existsSync(rig.audit('audit.jsonl')), { timeout: 20_000 }).toBe(true);
      await delay(50); // and some records in it
    }
    isRunning = false;
    await load;
    expect(await rig.createKey()).toBe('ok');
  });

  test.each(['audit.jsonl', 'audit-000000000000.jsonl'])('a full pipe in the place of %s: nobody waits for it, and it is said or passed over', async (name) => {
    expect(await rig.createKey()).toBe('ok');
    rmSync(rig.audit(name), { force: true });
    execFileSync('mkfifo', [rig.audit(name)]);
    const filler = spawn('sh', ['-c', `exec dd if=/dev/zero of=${rig.audit(name)} bs=4096 2>/dev/null`]);
    const reader = openSync(rig.audit(name), 'r+');
    await delay(300);
    rig.agent.child.kill('SIGHUP');
    const codes = new Set<string>();
    for (let index = 0; index < 20; index += 1) {
      codes.add(await codeOf(rig.kms.advanceEncrypt({ plaintext }, { timeoutMs: 5000 })));
      expect(await rig.kms.status({ timeoutMs: 5000 })).toMatchObject({ state: 'UNLOCKED' });
    }
    expect([...codes]).toEqual([name === 'audit.jsonl' ? 'ERR_AUDIT_UNAVAILABLE' : 'ok']);
    expect(await codeOf(rig.kms.tailAudit({}, { timeoutMs: 5000 }))).toBe(name === 'audit.jsonl' ? 'ERR_AUDIT_UNAVAILABLE' : 'ok');
    filler.kill('SIGKILL');
    closeSync(reader);
    rmSync(rig.audit(name));
    await rig.expectBack();
  });

  test('after all that the record is whole', async () => {
    await rig.expectNothingLost();
  });
});

test.each(['audit.jsonl', 'reserve'])(
  'a full pipe in the place of %s at the start: the agent does not wait for it, and says why it does not serve',
  async (name) => {
    using folder = new TempFolder();
    await initVault(folder);
    mkdirSync(folder.join('audit'), { mode: 0o700 });
    execFileSync('mkfifo', [folder.join('audit', name)]);
    const reader = openSync(folder.join('audit', name), 'r+');
    await expect(TestAgent.serve(folder, '--audit-dir', folder.join('audit'))).rejects.toThrow(/ended with 1: .*ERR_AUDIT_UNAVAILABLE: .*no regular file/);
    closeSync(reader);
  },
);

/** Rounds of `kill -9`; more by hand. */
const kills = Number(process.env['KMS_AGENT_CRASH_ROUNDS'] ?? 8);

test(`kill -9 at random moments under several clients, ${kills} times: the chain goes on, and at most what was not answered is missing`, {
  timeout: 600_000,
}, async () => {
  using folder = new TempFolder();
  await initVault(folder);
  const keys: string[] = [];
  const told = { encrypts: 0, described: 0 };
  const work = async (kms: AgentClient): Promise<void> => {
    for (;;) {
      const { keyId } = await kms.createKey();
      keys.push(keyId);
      await kms.updateKeyDescription({ keyId, description: 'described' });
      told.described += 1;
      await kms.advanceEncrypt({ keyId, plaintext });
      told.encrypts += 1;
    }
  };
  for (let kill = 0; kill < kills; kill += 1) {
    const agent = await TestAgent.serve(folder, '--audit-dir', folder.join('audit'));
    const clients = await Promise.all(Array.from({ length: 4 }, () => connect({ socketPath: agent.socketPath, retry: false })));
    await clients[0]?.unlock({ passphrase });
    const works = clients.map((client) => work(client).catch(() => undefined)); // the agent is killed: that is the experiment
    await delay(20 + Math.random() * 400);
    await agent.end('SIGKILL');
    await Promise.all(works);
    for (const client of clients) client.close();
  }
  const last = await TestAgent.serve(folder, '--audit-dir', folder.join('audit'));
  await (await last.client()).unlock({ passphrase }); // closes what had begun
  await last.end();
  await expectWhole(folder, keys);
  const records = auditRecords(folder.join('audit'));
  const count = (operation: string, outcome: string): number => records.filter((record) => record.operation === operation && record.outcome === outcome).length;
  for (const [recorded, answered] of [
    [count('advanceEncrypt', 'ok'), told.encrypts],
    [count('updateKeyDescription', 'done'), told.described],
  ] as const) {
    expect(recorded).toBeGreaterThanOrEqual(answered);
    expect(recorded - answered).toBeLessThanOrEqual(4 * kills); // one of each client was on its way
  }
  expect(count('start', 'ok')).toBe(kills + 1);
});
