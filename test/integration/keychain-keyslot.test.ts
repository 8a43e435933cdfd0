import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { isAgentError } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { runAsUser } from '../../daemon/src/cli/as-user.ts';
import { HalfDone, runSteps, type StepReport } from '../../daemon/src/cli/install/step.ts';
import { KeychainKeyslots } from '../../daemon/src/keyring/keychain-keyslot.ts';
import { Vault } from '../../daemon/src/vault/vault.ts';
import { agentProgram, cleanEnv, initVault, kmsProgram, passphrase, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { auditRecords } from '../kit/audit.ts';
import { hasKeyring, SecretService } from '../kit/keyring.ts';
import { hasLogindKit, TestBus, TestLogind } from '../kit/logind.ts';
import { type Answer, hasTerminal, onTerminal } from '../kit/terminal.ts';

const module = join(repository, 'daemon/dist/os/keychain.js');

/** Asks the keychain of a session, by our own module. @returns what it has as base64, `nothing`, or what was complained of. */
function ask(env: NodeJS.ProcessEnv, call: string): string {
  const script = `import { Keychain } from '${module}';
    const answer = await new Keychain().${call}.catch((error) => error.details.hint);
    console.log(answer === undefined ? 'nothing' : Buffer.isBuffer(answer) ? answer.toString('base64') : answer);`;
  return spawnSync(process.execPath, ['--no-warnings', '--input-type=module', '-e', script], { env: cleanEnv(env), encoding: 'utf8' }).stdout.trim();
}

const accountOf = (keyslotId: string): string => `keyslot ${keyslotId}`;
const read = (env: NodeJS.ProcessEnv, keyslotId: string): string => ask(env, `read('${accountOf(keyslotId)}')`);

describe('init whose later part fails: the vault is there, its recovery code is shown, and what is missing is named', () => {
  const dist = join(repository, 'daemon', 'dist');

  /** Runs init with a keychain, or a keyring, that fails; as compiled, for nobody reaches into a bundle. */
  async function initWith(folder: TempFolder, broken: string, ...args: string[]) {
    const patch = folder.join('patch.mjs');
    writeFileSync(patch, broken);
    const init = [join(dist, 'cli', 'main.js'), 'init', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', ...args];
    const { code, stdout, stderr } = await run('--disable-sigusr1', ['--disable-warning=ExperimentalWarning', '--import', patch, ...init], {
      secret: passphrase,
    });
    return { code, stdout: stdout.toString(), stderr };
  }
  const noKeychain = `import { AgentError } from '${join(repository, 'protocol', 'dist', 'index.js')}';
    import { Keychain } from '${join(dist, 'os', 'keychain.js')}';
    Keychain.prototype.read = async () => undefined;
    Keychain.prototype.write = async () => { throw new AgentError('ERR_STORE_UNAVAILABLE', { hint: 'The prompt was dismissed.' }); };`;
  const noKey = `import { Creation } from '${join(dist, 'keyring', 'creation.js')}';
    Creation.prototype.createKey = async () => { throw new Error('ENOSPC: no space left on device'); };`;

  test.each([
    [
      'a keychain whose prompt is dismissed',
      noKeychain,
      ['--keychain'],
      /^kms-agent: ERR_STORE_UNAVAILABLE: The prompt was dismissed\. The vault is made.*kms-agent keyslot add keychain\.\n$/,
    ],
    ['a disk that is full', noKey, [], /^kms-agent: ERR_STORE_UNAVAILABLE: ENOSPC: .*The vault is made.*kms key create --alias alias\/default/],
  ])('%s', async (_name, broken, args, words) => {
    for (const json of [[], ['--json']]) {
      using folder = new TempFolder();
      const { code, stdout, stderr } = await initWith(folder, broken, ...args, ...json);
      expect([code, stderr]).toEqual([1, expect.stringMatching(words)]);
      const shown = json.length === 0 ? (/^ {4}(\S+)$/m.exec(stdout)?.[1] ?? '') : (JSON.parse(stdout) as { recoveryCode: string }).recoveryCode;
      await using agent = await TestAgent.serve(folder);
      expect((await (await agent.client()).unlock({ passphrase: shown })).state).toBe('UNLOCKED');
    }
  });

  test('install --system shows what such a step printed', async () => {
    const reports: StepReport[] = [];
    const step = {
      name: 'vault',
      will: 'make a vault',
      isDone: () => false,
      run: () => Promise.reject(new HalfDone(new Error('no room'), { recoveryCode: 'R' })),
    };
    await expect(runSteps([step], { dryRun: false, onReport: (report) => reports.push(report) })).rejects.toThrow('no room');
    expect(reports).toEqual([{ name: 'vault', will: 'make a vault', outcome: 'failed', result: { recoveryCode: 'R' } }]);
    using folder = new TempFolder();
    writeFileSync(folder.join('fails.mjs'), 'console.log("printed"); console.error("kms-agent: no room"); process.exit(1);');
    await expect(runAsUser({ args: [], inputs: [], program: folder.join('fails.mjs') })).rejects.toMatchObject({ message: 'no room', output: 'printed\n' });
  });
});

describe.skipIf(!hasKeyring)('a keychain keyslot (needs gnome-keyring, a compiled keytar and a user with a name)', () => {
  let folder: TempFolder;
  let home: TempFolder;
  beforeEach(() => {
    folder = new TempFolder();
    home = new TempFolder();
  });
  afterEach(() => {
    folder[Symbol.dispose]();
    home[Symbol.dispose]();
  });

  const serve = (env: NodeJS.ProcessEnv, settings: object = {}): Promise<TestAgent> => {
    writeFileSync(folder.join('config.json'), JSON.stringify(settings), { mode: 0o600 });
    return TestAgent.serve(folder, '--config', folder.join('config.json'), { env: cleanEnv(env) });
  };

  /** A vault with a keychain slot, made on its files. @returns the slot's id. */
  async function addSlot(env: NodeJS.ProcessEnv): Promise<string> {
    await initVault(folder);
    const args = ['keyslot', 'add', 'keychain', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json'];
    const { code, stdout, stderr } = await run(agentProgram, args, { secret: passphrase, env: cleanEnv(env) });
    if (code !== 0) throw new Error(stderr);
    return (JSON.parse(stdout.toString()) as { keyslotId: string }).keyslotId;
  }

  /** The state of an agent, and why it does not open by itself. */
  async function stateOf(agent: TestAgent): Promise<[state: string, why: string]> {
    const kms = await agent.client();
    const { state } = await kms.status();
    const refused: unknown = state === 'UNLOCKED' ? undefined : await kms.unlock({}).catch((error: unknown) => error);
    return [state, isAgentError(refused, 'ERR_UNLOCK_FAILED') ? (refused.details.hint ?? '') : ''];
  }

  /** That a person gets in, and that no slot was made or lost. */
  async function expectWholeFor(agent: TestAgent): Promise<void> {
    const kms = await agent.client();
    expect((await kms.unlock({ passphrase })).state).toBe('UNLOCKED');
    expect((await kms.listKeyslots()).keyslots.map(({ type }) => type).sort()).toEqual(['keychain', 'passphrase', 'recovery']);
  }

  test('init --keychain: the agent comes up unlocked, in this session and after the next log-in; its secret is in no file of the vault', async () => {
    let secret = '';
    {
      await using session = await SecretService.start(home);
      const args = ['init', '--keychain', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json'];
      const made = await run(agentProgram, args, { secret: passphrase, env: cleanEnv(session.env) });
      const { keychainKeyslotId } = JSON.parse(made.stdout.toString()) as { keychainKeyslotId: string };
      secret = read(session.env, keychainKeyslotId);
      expect(Buffer.from(secret, 'base64')).toHaveLength(32);
      await using agent = await serve(session.env);
      expect(await stateOf(agent)).toEqual(['UNLOCKED', '']);
      const { keyslots } = await (await agent.client()).listKeyslots();
      expect(keyslots.find(({ keyslotId }) => keyslotId === keychainKeyslotId)).toMatchObject({
        type: 'keychain',
        lastUnlockTime: expect.any(String) as string,
      });
    }
    for (const form of [secret, Buffer.from(secret, 'base64')]) expect(readFileSync(folder.join('vault', 'vault.db')).includes(form)).toBe(false);
    await using session = await SecretService.start(home);
    await using agent = await serve(session.env);
    expect(await stateOf(agent)).toEqual(['UNLOCKED', '']);
  });

  test('kms keyslot add keychain, on a running agent: unlock without a secret opens it; what is removed is in the keychain no more', async () => {
    await using session = await SecretService.start(home);
    await initVault(folder);
    await using agent = await serve(session.env);
    const kms = await agent.client();
    await kms.unlock({ passphrase });
    await expect(kms.addKeyslot({ type: 'keychain', proof: { passphrase: 'a wrong one' } })).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
    await new Promise((resolve) => setTimeout(resolve, 1100)); // who guesses waits
    const env = cleanEnv({ KMS_AGENT_SOCK: agent.socketPath });
    const { code, stdout, stderr } = await run(kmsProgram, ['keyslot', 'add', 'keychain', '--passphrase-fd', '3', '--json'], { secret: passphrase, env });
    expect([code, stderr]).toEqual([0, '']);
    const { keyslotId } = (JSON.parse(stdout.toString()) as { keyslot: { keyslotId: string } }).keyslot;
    await kms.lock();
    expect((await kms.unlock({})).state).toBe('UNLOCKED');
    await kms.lock();
    expect((await kms.unlock({ keyslotId })).state).toBe('UNLOCKED');
    await kms.removeKeyslot({ keyslotId, proof: { passphrase } });
    expect(read(session.env, keyslotId)).toBe('nothing');
    await kms.lock();
    await expect(kms.unlock({})).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
  });

  describe.skipIf(!hasLogindKit)('with a session that logind knows (needs dbus, python3-dbus and python3-gi)', () => {
    const patient = { timeout: 20_000 };
    let made: AsyncDisposableStack;
    let logind: TestLogind;
    let agent: TestAgent;

    /** An agent, unlocked by the keychain. */
    async function begin(settings: object): Promise<void> {
      made = new AsyncDisposableStack();
      const session = made.use(await SecretService.start(home));
      const bus = made.use(new TestBus(folder));
      await bus.start();
      logind = made.use(await TestLogind.start(bus));
      await logind.tell(`session 1 ${process.geteuid?.()}`);
      await addSlot(session.env);
      agent = made.use(await serve({ ...session.env, DBUS_SYSTEM_BUS_ADDRESS: bus.address }, settings));
      await logind.next('inhibit');
      await expect.poll(() => agent.startLog + agent.log, patient).toContain('systemd-logind says when');
    }
    afterEach(async () => await made.disposeAsync());

    const state = async (): Promise<string> => (await (await agent.client()).status()).state;
    const unlocks = (): unknown[] =>
      auditRecords(folder.join('vault', 'audit')).flatMap(({ operation, outcome, detail }) => (operation === 'unlock' ? [[outcome, detail]] : []));
    const lockScreen = async (): Promise<void> => {
      await logind.tell('hint 1 1');
      await expect.poll(state, patient).toBe('LOCKED');
    };
    /** Long enough for what the helper says to reach the agent, and for a keychain to answer. */
    const settle = async (): Promise<string> => {
      await new Promise((resolve) => setTimeout(resolve, 1500));
      return await state();
    };

    test('unlockOnScreenUnlock: the keychain opens again what the screen or a suspension has locked, by either signal; the record says so', async () => {
      await begin({ unlockOnScreenUnlock: true });
      await lockScreen();
      await logind.tell('hint 1 0');
      await expect.poll(state, patient).toBe('UNLOCKED');
      await logind.tell('ask 1');
      await expect.poll(state, patient).toBe('LOCKED');
      await logind.tell('free 1');
      await expect.poll(state, patient).toBe('UNLOCKED');
      await logind.tell('sleep');
      await lockScreen();
      await logind.tell('wake');
      await logind.tell('hint 1 0');
      await expect.poll(state, patient).toBe('UNLOCKED');
      await expect.poll(() => unlocks().slice(1)).toEqual(Array.from({ length: 3 }, () => ['ok', { because: 'screenUnlock' }]));
    });

    test('unlockOnScreenUnlock without lockOnScreenLock: the screen locks nothing, and opens again what a suspension has locked', async () => {
      await begin({ unlockOnScreenUnlock: true, lockOnScreenLock: false });
      await logind.tell('ask 1');
      await logind.tell('hint 1 1');
      expect(await settle()).toBe('UNLOCKED');
      await logind.tell('sleep');
      await expect.poll(state, patient).toBe('LOCKED');
      await logind.tell('wake');
      await logind.tell('hint 1 0');
      await expect.poll(state, patient).toBe('UNLOCKED');
      await expect.poll(() => unlocks().at(-1)).toEqual(['ok', { because: 'screenUnlock' }]);
    });

    test('unlockOnScreenUnlock: what a person or a signal has locked, before the screen or behind it, stays locked', async () => {
      await begin({ unlockOnScreenUnlock: true });
      const kms = await agent.client();
      const freed = async (): Promise<string> => {
        await logind.tell('hint 1 0');
        await logind.tell('free 1');
        return await settle();
      };
      await kms.lock();
      await lockScreen();
      expect(await freed()).toBe('LOCKED');
      await kms.unlock({});
      await lockScreen();
      await kms.lock();
      expect(await freed()).toBe('LOCKED');
      await kms.unlock({});
      agent.child.kill('SIGUSR2');
      await expect.poll(state, patient).toBe('LOCKED');
      await lockScreen();
      expect(await freed()).toBe('LOCKED');
      expect(unlocks().filter((unlock) => JSON.stringify(unlock).includes('screenUnlock'))).toEqual([]);
    });

    test('without unlockOnScreenUnlock: the agent stays locked', async () => {
      await begin({});
      await lockScreen();
      await logind.tell('hint 1 0');
      await logind.tell('free 1');
      expect(await settle()).toBe('LOCKED');
    });
  });

  test('a locked keyring: locked with a reason, nothing made; unlocked later, it opens', async () => {
    let keyslotId = '';
    {
      await using session = await SecretService.start(home);
      keyslotId = await addSlot(session.env);
    }
    {
      await using session = await SecretService.start(home, { isLocked: true });
      await using agent = await serve(session.env);
      expect(await stateOf(agent)).toEqual(['LOCKED', expect.stringContaining(`is locked, or has nothing for the keyslot ${keyslotId}`)]);
      await expectWholeFor(agent);
    }
    await using session = await SecretService.start(home);
    await using agent = await serve(session.env);
    expect(await stateOf(agent)).toEqual(['UNLOCKED', '']);
  });

  test('no session bus: locked with a reason, and unlocked by itself once there is one', async () => {
    let env: NodeJS.ProcessEnv = {};
    {
      await using session = await SecretService.start(home);
      env = session.env;
      await addSlot(env);
    }
    await using agent = await serve(env);
    expect(await stateOf(agent)).toEqual(['LOCKED', expect.stringContaining('The OS keychain cannot be used: ')]);
    await using _session = await SecretService.start(home);
    const kms = await agent.client();
    await expect.poll(async () => (await kms.status()).state, { timeout: 30_000 }).toBe('UNLOCKED');
  });

  test.each([
    [
      'of another program',
      (account: string) => `write('${account}', Buffer.from('${randomBytes(32).toString('base64')}', 'base64'))`,
      'does not open this vault',
    ],
    ['of another program, and no secret at all', (account: string) => `write('${account}', Buffer.from('hello'))`, 'does not open this vault'],
    ['removed by somebody', (account: string) => `remove('${account}')`, 'has nothing for the keyslot'],
  ])('an item %s: locked with a reason, the item is left as it is, and a person gets in', async (_name, change, words) => {
    await using session = await SecretService.start(home);
    const keyslotId = await addSlot(session.env);
    ask(session.env, change(accountOf(keyslotId)));
    const before = read(session.env, keyslotId);
    await using agent = await serve(session.env);
    expect(await stateOf(agent)).toEqual(['LOCKED', expect.stringContaining(words)]);
    await expectWholeFor(agent);
    expect(read(session.env, keyslotId)).toBe(before);
    expect(agent.startLog).toContain('nothing opens the vault without a person yet');
  });

  test('a keychain that does not answer: given up after keychainTimeoutMs; others are served meanwhile, and a passphrase opens at once', async () => {
    let env: NodeJS.ProcessEnv = {};
    {
      await using session = await SecretService.start(home);
      env = session.env;
      await addSlot(env);
    }
    const silent = folder.join('silent');
    const server = createServer(() => undefined).listen(silent);
    try {
      await using agent = await serve({ ...env, DBUS_SESSION_BUS_ADDRESS: `unix:path=${silent}` }, { keychainTimeoutMs: 3000 });
      const kms = await agent.client();
      const asked = kms.unlock({}).catch((error: unknown) => error);
      await new Promise((resolve) => setTimeout(resolve, 200));
      expect((await kms.status()).state).toBe('LOCKED');
      await expect((await agent.client()).call('unlock', {}, { timeoutMs: 500 })).rejects.toMatchObject({ code: 'ERR_BUSY' });
      expect((await kms.unlock({ passphrase })).state).toBe('UNLOCKED');
      expect(await asked).toMatchObject({
        code: 'ERR_UNLOCK_FAILED',
        details: { hint: expect.stringContaining('no answer for 3000 ms (keychainTimeoutMs)') as string },
      });
    } finally {
      server.close();
    }
  });

  test('init --keychain without a keychain, and without being asked: nothing is made; with --no-keychain it is', async () => {
    const env = cleanEnv({ DBUS_SESSION_BUS_ADDRESS: 'unix:path=/nowhere' });
    const init = (...flags: string[]): ReturnType<typeof run> =>
      run(agentProgram, ['init', ...flags, '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json'], { secret: passphrase, env });
    const refused = await init('--keychain');
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain('The OS keychain cannot be used');
    expect(existsSync(folder.join('vault'))).toBe(false);
    expect((await init('--no-keychain')).code).toBe(0);
  });

  test.skipIf(!hasTerminal).each([
    ['', 'UNLOCKED'],
    ['n', 'LOCKED'],
  ])('init on a terminal offers it; answered "%s" the agent comes up %s', async (answer, state) => {
    await using session = await SecretService.start(home);
    const answers: Answer[] = [
      ['logged in\\? \\[Y/n\\] ', answer],
      ['New passphrase for the vault: ', passphrase],
      ['Again: ', passphrase],
    ];
    const env = cleanEnv(session.env);
    expect(onTerminal([process.execPath, agentProgram, 'init', '--data-dir', folder.join('vault')], answers, { env })).toMatchObject({ status: 0 });
    await using agent = await serve(session.env);
    expect((await stateOf(agent))[0]).toBe(state);
  });

  test('doctor: the keychain has an item for the slot, has none, is not there; without such a slot it is not asked', async () => {
    const look = async (env: NodeJS.ProcessEnv): Promise<{ ok: boolean; detail: string } | undefined> => {
      const { stdout } = await run(agentProgram, ['doctor', '--data-dir', folder.join('vault'), '--json'], { env: cleanEnv(env) });
      return (JSON.parse(stdout.toString()) as { findings: { name: string; ok: boolean; detail: string }[] }).findings.find(({ name }) => name === 'keychain');
    };
    const nowhere = { DBUS_SESSION_BUS_ADDRESS: 'unix:path=/nowhere' };
    expect(await look(nowhere)).toMatchObject({ ok: true, detail: 'no keyslot of this vault needs it' });
    await using session = await SecretService.start(home);
    const keyslotId = await addSlot(session.env);
    await using _agent = await serve(session.env); // it may have the vault open
    expect(await look(session.env)).toMatchObject({ ok: true, detail: `has an item for the keyslot ${keyslotId}` });
    expect(await look(nowhere)).toMatchObject({ ok: false, detail: expect.stringContaining('The OS keychain cannot be used') as string });
    ask(session.env, `remove('${accountOf(keyslotId)}')`);
    expect(await look(session.env)).toMatchObject({ ok: false, detail: expect.stringContaining('kms keyslot add keychain') as string });
  });

  test('rekey: the slot goes, and what was stored for it', async () => {
    await using session = await SecretService.start(home);
    const keyslotId = await addSlot(session.env);
    const args = ['rekey', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json'];
    const { code, stdout } = await run(agentProgram, args, { secret: passphrase, env: cleanEnv(session.env) });
    expect(code).toBe(0);
    expect((JSON.parse(stdout.toString()) as { droppedKeyslots: { type: string }[] }).droppedKeyslots.map(({ type }) => type).sort()).toEqual([
      'keychain',
      'recovery',
    ]);
    expect(read(session.env, keyslotId)).toBe('nothing');
  });
});

test('a keychain that gave nothing is not asked again without a person, because it may prompt; a person asks it again', async () => {
  const { vault } = await Vault.create({ clock: Date.now, slots: [] });
  let asked = 0;
  const store = {
    read: (): Promise<undefined> => {
      asked += 1;
      return Promise.resolve(undefined);
    },
    write: () => Promise.resolve(),
    remove: () => Promise.resolve(),
  };
  const slots = new KeychainKeyslots(store, () => asked * 1e9); // however long it is ago
  for (const [isAsked, times] of [
    [false, 1],
    [false, 1],
    [true, 2],
    [false, 2],
  ] as const) {
    await expect(slots.open(vault, ['one'], isAsked)).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
    expect(asked).toBe(times);
  }
  vault.close();
});
