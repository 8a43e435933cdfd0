import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { agentProgram, cleanEnv, type Finished, initVault, kmsProgram, passphrase, run, TempFolder, TestAgent } from '../kit/agent.ts';

let folder: TempFolder;
let agent: TestAgent;
beforeAll(async () => {
  folder = new TempFolder();
  agent = await TestAgent.dev();
  await kms(['key', 'create', '--spec', 'EC_P256', '--alias', 'alias/cli']);
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const kms = (args: readonly string[], input?: Uint8Array | string): Promise<Finished> =>
  run(kmsProgram, args, { env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }), ...(input === undefined ? {} : { input: Buffer.from(input) }) });

test('encrypt and decrypt: through pipes, through files, as base64; a new file is 0600 and no old one is lost', async () => {
  const secret = randomBytes(65_536);
  const sealed = await kms(['encrypt', '--aad', 'x'], secret);
  expect((await kms(['decrypt', '--aad', 'x'], sealed.stdout)).stdout.equals(secret)).toBe(true);
  expect(await kms(['encrypt', '--base64', '-o', folder.join('out')], 'text')).toMatchObject({ code: 0 });
  expect(statSync(folder.join('out')).mode & 0o777).toBe(0o600);
  const before = readFileSync(folder.join('out'));
  expect(await kms(['encrypt', '-o', folder.join('out')], 'other')).toMatchObject({ code: 2, stderr: expect.stringContaining('-f') as string });
  expect(readFileSync(folder.join('out')).equals(before)).toBe(true);
  expect((await kms(['decrypt', '--base64', folder.join('out')])).stdout.toString()).toBe('text');
  expect((await kms(['encrypt', '-f', '-o', folder.join('out')], 'other')).code).toBe(0);
  expect((await kms(['decrypt', folder.join('out')])).stdout.toString()).toBe('other');
  expect(await kms(['encrypt'], randomBytes(65_537))).toMatchObject({ code: 2, stderr: expect.stringContaining('kms encrypt-file') as string });
});

test('re-encrypt: the new blob opens under the other key, with its own authenticated data', async () => {
  await kms(['key', 'create', '--alias', 'alias/moved']);
  const sealed = (await kms(['encrypt', '--aad', 'old'], 'text')).stdout;
  const moved = (await kms(['re-encrypt', '--aad', 'old', '--to', 'alias/moved', '--to-aad', 'new'], sealed)).stdout;
  expect((await kms(['decrypt', '-k', 'alias/moved', '--aad', 'new'], moved)).stdout.toString()).toBe('text');
  expect((await kms(['decrypt', '--aad', 'old'], moved)).code).toBe(1);
});

test('sign and verify: any size, and exit status 1 for what is not valid', async () => {
  const big = randomBytes(300_000);
  writeFileSync(folder.join('big'), big);
  expect((await kms(['sign', '-k', 'alias/cli', folder.join('big'), '-o', folder.join('big.sig')])).code).toBe(0);
  expect((await kms(['verify', '-k', 'alias/cli', folder.join('big.sig'), folder.join('big')])).code).toBe(0);
  const { publicKey } = JSON.parse((await kms(['--json', 'public-key', '-k', 'alias/cli'])).stdout.toString()) as { publicKey: string };
  writeFileSync(folder.join('pub.pem'), publicKey);
  const openssl = spawnSync('openssl', ['dgst', '-sha256', '-verify', folder.join('pub.pem'), '-signature', folder.join('big.sig'), folder.join('big')], {
    encoding: 'utf8',
  });
  expect(openssl.stdout.trim()).toBe('Verified OK');
  expect(await kms(['verify', '-k', 'alias/cli', folder.join('big.sig')], 'something else')).toMatchObject({ code: 1 });
});

test('sign: a pipe by its name, whose content comes in pieces', async () => {
  execFileSync('mkfifo', [folder.join('pieces')]);
  spawn('sh', ['-c', 'for n in 1 2 3; do printf "piece %s, " $n; sleep 0.2; done > "$0"', folder.join('pieces')]);
  expect((await kms(['sign', '-k', 'alias/cli', folder.join('pieces'), '-o', folder.join('pieces.sig')])).code).toBe(0);
  writeFileSync(folder.join('whole'), 'piece 1, piece 2, piece 3, ');
  expect((await kms(['public-key', '-k', 'alias/cli', '-o', folder.join('pieces.pem')])).code).toBe(0);
  const openssl = ['dgst', '-sha256', '-verify', folder.join('pieces.pem'), '-signature', folder.join('pieces.sig'), folder.join('whole')];
  expect(spawnSync('openssl', openssl, { encoding: 'utf8' }).stdout.trim()).toBe('Verified OK');
});

test('exit status: 1 refused, 2 usage, 3 no agent, 4 locked or without a vault; errors say what to do', async () => {
  expect(await kms(['key', 'show', 'alias/none'])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^kms: ERR_ALIAS_NOT_FOUND: .*kms alias list/) as string,
  });
  expect((await kms(['key', 'frobnicate'])).code).toBe(2);
  expect((await kms(['call', 'describeKey', '{'])).code).toBe(2);
  expect((await kms(['call', 'describeKey', '{"keyId":"?"}'])).stderr).toContain('/keyId');
  const nobody = await run(kmsProgram, ['status', '--socket', folder.join('none')]);
  expect(nobody).toMatchObject({ code: 3, stderr: expect.stringContaining(folder.join('none')) as string });
  using other = new TempFolder();
  await using empty = await TestAgent.serve(other);
  expect(await run(kmsProgram, ['encrypt', '--socket', empty.socketPath], { input: Buffer.from('x') })).toMatchObject({
    code: 4,
    stderr: expect.stringContaining('kms-agent init') as string,
  });
});

test('unlock and keyslot add: secrets come through a descriptor', async () => {
  using other = new TempFolder();
  const recoveryCode = await initVault(other);
  await using locked = await TestAgent.serve(other);
  const args = (...words: string[]): string[] => ['--socket', locked.socketPath, ...words, '--passphrase-fd', '3'];
  expect(await run(kmsProgram, ['--socket', locked.socketPath, 'encrypt'], { input: Buffer.from('x') })).toMatchObject({ code: 4 });
  expect(await run(kmsProgram, args('unlock'), { secret: `${recoveryCode}\n` })).toMatchObject({ code: 0 });
  expect(await run(kmsProgram, args('keyslot', 'add', 'recovery'), { secret: passphrase })).toMatchObject({ code: 0 });
  expect((await run(kmsProgram, ['--socket', locked.socketPath, 'keyslot', 'list'])).stdout.toString().match(/recovery/g)?.length).toBeGreaterThanOrEqual(2);
});

test('status: a page with the socket and where that is from; as JSON what the agent answers', async () => {
  expect((await kms(['status'])).stdout.toString()).toMatch(
    new RegExp(
      `^Agent +\\S+, protocol 1\nSocket +${agent.socketPath}, from KMS_AGENT_SOCK\nState +UNLOCKED since (.|\n)*\nKeys +\\d+\n(.|\n)*\nWarnings +(none\n|(.*The protection .* is off: .*\n)+)$`,
    ),
  );
  expect((await kms(['status', '--socket', agent.socketPath])).stdout.toString()).toContain(`${agent.socketPath}, from --socket\n`);
  expect(JSON.parse((await kms(['status', '--json'])).stdout.toString())).toMatchObject({ state: 'UNLOCKED', protocolVersion: 1 });
});

test.each(['bash', 'zsh', 'fish'])('completion %s: knows the commands', async (shell) => {
  const { stdout } = await kms(['completion', shell]);
  for (const word of ['encrypt', 'rotate', 'aad-file']) expect(stdout.toString()).toContain(word);
  if (shell === 'bash') expect(spawnSync('bash', ['-n'], { input: stdout }).status).toBe(0);
});

test('every command: has help', async () => {
  const top = (await kms(['--help'])).stdout.toString();
  const names = [...top.matchAll(/^ {2}([a-z][a-z-]*) /gm)].map(([, name]) => name ?? '').filter((name) => name !== 'help');
  expect(names.length).toBeGreaterThan(12);
  for (const help of await Promise.all(names.map((name) => kms([name, '--help'])))) expect([help.code, help.stdout.length > 60]).toEqual([0, true]);
});

test('kms-agent: backup beside the agent, restore, rekey and salvage, end to end', async () => {
  using other = new TempFolder();
  await initVault(other);
  const vault = ['--data-dir', other.join('vault')];
  const secret = `${passphrase}\n`;
  const sealed = await (async () => {
    await using running = await TestAgent.serve(other);
    const client = await running.client();
    await client.unlock({ passphrase });
    const blob = await client.advanceEncrypt({ plaintext: new Uint8Array([9]) });
    expect((await run(agentProgram, ['backup', other.join('backup.db'), ...vault])).code).toBe(0);
    expect((await run(agentProgram, ['rekey', '--passphrase-fd', '3', ...vault], { secret })).code).toBe(1);
    return blob;
  })();
  expect((await run(agentProgram, ['rekey', '--json', '--passphrase-fd', '3', ...vault], { secret })).code).toBe(0);
  expect((await run(agentProgram, ['restore', other.join('backup.db'), '--data-dir', other.join('restored')])).code).toBe(0);
  expect((await run(agentProgram, ['restore', other.join('backup.db'), ...vault])).code).toBe(1);
  expect((await run(agentProgram, ['salvage', other.join('saved'), '--passphrase-fd', '3', ...vault], { secret })).code).toBe(0);
  for (const name of ['vault', 'restored', 'saved']) {
    await using agentThere = await TestAgent.start(['serve', '--data-dir', other.join(name), '--socket', other.join(`${name}.sock`)]);
    const client = await agentThere.client();
    await client.unlock({ passphrase });
    expect((await client.advanceDecrypt(sealed)).plaintext).toEqual(new Uint8Array([9]));
  }
});

test('kms key: the whole life by hand; what cannot be undone asks, or wants --yes', async () => {
  const made = JSON.parse(
    (await kms(['key', 'create', '--alias', 'alias/life', '--rotate', '90d', '--protect', '--tag', 'team=web', '--json'])).stdout.toString(),
  ) as { keyId: string };
  const page = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await kms(['key', ...args]);
    expect([code, stderr]).toEqual([0, '']);
    return stdout.toString();
  };
  expect(await page('show', 'alias/life')).toMatch(/Kind +AES_256, software-protected, encrypts and decrypts\nState +Enabled\nProtected +yes/);
  expect(await page('show', 'alias/life')).toMatch(/Rotation +on, every 90d, next .* \(in (89|90) days\)/);
  expect(await kms(['key', 'delete', 'alias/life', '--yes'])).toMatchObject({ code: 1, stderr: expect.stringContaining('ERR_DELETION_PROTECTED') as string });
  await page('unprotect', 'alias/life');
  expect(await kms(['key', 'delete', 'alias/life'])).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') as string });
  expect(await page('delete', 'alias/life', '--days', '7', '--yes')).toMatch(/State +PendingDeletion\nDestroyed +.*\(in (6|7) days\)/);
  expect(await kms(['encrypt', '-k', 'alias/life'], 'x')).toMatchObject({ code: 1, stderr: expect.stringContaining('ERR_KEY_PENDING_DELETION') as string });
  expect((await kms(['key', 'list', '--state', 'PendingDeletion'])).stdout.toString()).toContain(made.keyId);
  expect(await page('cancel-deletion', 'alias/life')).toMatch(/State +Enabled/);
  expect(await page('disable', 'alias/life')).toMatch(/State +Disabled(.|\n)*Rotation +suspended, every 90d/);
  expect(await page('enable', 'alias/life')).toMatch(/State +Enabled/);
  expect(await page('tag', 'alias/life', 'a=1', 'b=2')).toMatch(/Tags +team=web, a=1, b=2/);
  expect(await page('untag', 'alias/life', 'team', 'a')).toMatch(/Tags +b=2/);
  expect(await page('rotation', 'alias/life', 'off')).toMatch(/Rotation +off/);
  expect(await page('describe', 'alias/life', 'what it is for')).toMatch(/Description +what it is for/);
  expect(await page('protect', 'alias/life', '--why', 'signs releases')).toMatch(/Protected +yes: signs releases/);
  const { primaryKeyVersionId } = JSON.parse((await kms(['key', 'show', 'alias/life', '--json'])).stdout.toString()) as { primaryKeyVersionId: string };
  expect(await page('version', 'alias/life', primaryKeyVersionId)).toMatch(/primary +true/);
  expect((await kms(['key', 'list'])).stdout.toString()).not.toContain('\u001b');
  expect(await kms(['confirm-clock'])).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') as string });
  expect(await kms(['confirm-clock', '--yes'])).toMatchObject({ code: 0 });
});

/** Runs kms on a terminal of its own and types an answer at each prompt. @returns all that the terminal showed, and the exit status. */
async function onTerminal(command: string, answers: readonly string[]): Promise<{ shown: string; code: number | null }> {
  const terminal = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = [...answers];
  let shown = '';
  let asked = 0;
  terminal.stdout.on('data', (chunk: Buffer) => {
    shown += chunk.toString();
    for (const prompts = shown.split(': ').length - 1; asked < prompts; asked += 1) terminal.stdin.write(`${waiting.shift() ?? ''}\r`);
  });
  const code = await new Promise<number | null>((resolve) => terminal.on('close', resolve));
  return { shown, code };
}

test('init and unlock on a terminal: the passphrase is asked, twice when it is new, and never shown', async () => {
  using own = new TempFolder();
  const quoted = (program: string, args: string): string => `${process.execPath} ${program} ${args}`;
  const init = await onTerminal(quoted(agentProgram, `init --data-dir ${own.join('vault')} --no-default-key`), [passphrase, passphrase]);
  expect(init).toMatchObject({ code: 0, shown: expect.stringContaining('Recovery code') as string });
  await using served = await TestAgent.serve(own);
  const unlock = await onTerminal(quoted(kmsProgram, `--socket ${served.socketPath} unlock`), [passphrase]);
  expect(unlock).toMatchObject({ code: 0, shown: expect.stringContaining('UNLOCKED') as string });
  expect(init.shown + unlock.shown).not.toContain(passphrase);
  const differing = await onTerminal(quoted(agentProgram, `init --data-dir ${own.join('other')}`), [passphrase, 'something else']);
  expect(differing).toMatchObject({ code: 1, shown: expect.stringContaining('differ') as string });
});

test('on a terminal: states are coloured unless NO_COLOR is set, and a deletion goes on after yes only', async () => {
  await kms(['key', 'create', '--alias', 'alias/asked']);
  const quoted = (args: string): string => `${process.execPath} ${kmsProgram} --socket ${agent.socketPath} ${args}`;
  expect((await onTerminal(quoted('key list'), [])).shown).toContain('\u001b[32mEnabled');
  expect((await onTerminal(`NO_COLOR=1 ${quoted('key list')}`, [])).shown).not.toContain('\u001b[32m');
  expect(await onTerminal(quoted('key delete alias/asked'), ['no'])).toMatchObject({ code: 2, shown: expect.stringContaining('nothing was done') as string });
  expect(await onTerminal(quoted('key delete alias/asked'), ['yes'])).toMatchObject({ code: 0, shown: expect.stringContaining('PendingDeletion') as string });
});

test('what somebody wrote into a description: no control of a terminal gets through, also none that turns the direction; a deletion names what the person knows', async () => {
  const { stdout } = await kms(['key', 'create', '--alias', 'alias/known', '--description', 'safe \u202egnihtemos\u2066 \u001b[31m', '--json']);
  const { keyId } = JSON.parse(stdout.toString()) as { keyId: string };
  for (const args of [
    ['key', 'list'],
    ['key', 'show', keyId],
  ]) {
    const shown = (await kms(args)).stdout.toString();
    expect(shown).toContain('safe \\u202egnihtemos\\u2066 \\u001b[31m');
    for (const control of ['\u202e', '\u2066', '\u001b']) expect(shown).not.toContain(control);
  }
  const refused = await kms(['key', 'delete', keyId]);
  expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(new RegExp(`${keyId} \\(alias/known, "safe .*", last used never\\)`)) as string });
  expect(refused.stderr).not.toContain('\u202e');
});

test('a reader that goes away early: no stack trace', async () => {
  const piped = spawnSync('bash', ['--norc', '-c', `${process.execPath} ${kmsProgram} call rpc.discover | head -c 1; echo " \${PIPESTATUS[0]}"`], {
    env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }),
    encoding: 'utf8',
  });
  expect([piped.stderr, piped.stdout]).toEqual(['', expect.stringMatching(/^\{ (0|141)\n$/)]);
});

test("kms-agent dev with a command: a signal is the command's, and the agent lives until it ends", async () => {
  const child = spawn(
    process.execPath,
    [
      agentProgram,
      'dev',
      '--',
      'sh',
      '-c',
      'trap "kms_ended=1" TERM; echo ready; while [ -z "$kms_ended" ]; do sleep 0.05; done; test -S "$KMS_AGENT_SOCK" && exit 7',
    ],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: cleanEnv(),
    },
  );
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGTERM');
  expect(await new Promise((resolve) => child.on('exit', resolve))).toBe(7);
});
