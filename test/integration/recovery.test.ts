import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { agentProgram, cleanEnv, initVault, kmsProgram, passphrase, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { asUser, canRunAsUser } from '../kit/attacker.ts';
import { type Answer, hasTerminal, onTerminal } from '../kit/terminal.ts';

vi.setConfig({ testTimeout: 120_000 }); // many processes, one after the other

const page = readFileSync(join(repository, 'daemon', 'RECOVERY.md'), 'utf8');

/** The commands under a heading of the page. */
function commandsUnder(heading: string): string {
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? '';
  return /^```sh\n(.*?)^```/ms.exec(section)?.[1] ?? 'exit 9';
}

describe.skipIf(!hasTerminal)('daemon/RECOVERY.md, as it stands there, on a terminal (needs python3)', () => {
  let folder: TempFolder;
  let agent: TestAgent;
  let recoveryCode: string;
  beforeEach(async () => {
    folder = new TempFolder();
    mkdirSync(folder.join('bin'));
    for (const [name, program] of [
      ['kms', kmsProgram],
      ['kms-agent', agentProgram],
    ] as const) {
      writeFileSync(folder.join('bin', name), `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`);
      chmodSync(folder.join('bin', name), 0o755);
    }
    recoveryCode = await initVault(folder);
    agent = await TestAgent.serve(folder);
  });
  afterEach(async () => {
    await agent.end();
    folder[Symbol.dispose]();
  });

  function type(commands: string, answers: readonly Answer[]): string {
    const env = cleanEnv({ KMS_AGENT_SOCK: agent.socketPath, KMS_AGENT_DATA_DIR: folder.join('vault'), PATH: `${folder.join('bin')}:${process.env['PATH']}` });
    const { status, shown } = onTerminal(['bash', '--norc', '-meuo', 'pipefail', '-c', commands], answers, { env, cwd: folder.path });
    expect(status, shown).toBe(0);
    return shown;
  }

  test('A new passphrase: with the recovery code, and the new one opens', async () => {
    const [code, fresh] = ['recovery code: ', 'a new passphrase of mine'];
    const answers: Answer[] = [
      [code, recoveryCode],
      ['existing keyslot: ', recoveryCode],
      ['New passphrase: ', fresh],
      ['Again: ', fresh],
    ];
    const shown = type(commandsUnder('A new passphrase'), answers);
    expect(shown.match(/ passphrase /g)?.length).toBeGreaterThanOrEqual(2);
    expect(shown).not.toContain(fresh);
    const kms = await agent.client();
    await kms.lock();
    expect((await kms.unlock({ passphrase: fresh })).state).toBe('UNLOCKED');
  });

  test('A restore drill: what was encrypted is read with the backup and the recovery code, and nothing is left behind', async () => {
    await (await agent.client()).unlock({ passphrase });
    const shown = type(commandsUnder('A restore drill'), [['recovery code: ', recoveryCode]]);
    expect(shown.match(/can this be read\?/g)?.length).toBeGreaterThanOrEqual(1);
    for (const name of ['drill', 'drill-backup.db', 'drill.kms', 'drill.log', 'drill.sock'])
      expect([name, existsSync(folder.join(name))]).toEqual([name, false]);
    expect((await (await agent.client()).status()).state).toBe('UNLOCKED');
  });

  test('A backup: one file, beside the running agent', () => {
    type(commandsUnder('A backup'), []);
    expect(existsSync(folder.join('vault-backup.db'))).toBe(true);
  });
});

describe("--system: the system's agent", () => {
  const env = cleanEnv();

  test.each([
    [['backup', '--system', '/media/a safe/vault.db'], "backup --system '/media/a safe/vault.db'"],
    [['rekey', '--system'], 'rekey --system'],
    [['restore', '--system', '/media/vault.db'], 'restore --system /media/vault.db'],
    [['salvage', '--system', '/srv/rescued'], 'salvage --system /srv/rescued'],
    [['audit', 'verify', '--system'], 'audit verify --system'],
    [['keyslot', 'add', 'credential', '--system', '--secret-fd', '3'], 'keyslot add credential --system --secret-fd 3'],
  ])('%j as another user: the same command as its own', async (args, command) => {
    const { code, stderr } = await run(agentProgram, args, { env });
    expect(code).toBe(1);
    expect(stderr).toContain('ERR_ACCESS_DENIED: ');
    expect(stderr).toContain(`runuser -u kms-agent -- kms-agent ${command}\n`);
  });

  test.skipIf(!canRunAsUser)(
    'keyslot add credential as neither root nor the agent’s own user (as root: needs a checkout that others can read): says who may',
    () => {
      const command = [...asUser, process.execPath, agentProgram, 'keyslot', 'add', 'credential', '--system'];
      const { status, stderr } = spawnSync('env', command, { cwd: '/', env, encoding: 'utf8' });
      expect([status, stderr]).toEqual([1, expect.stringContaining('Only root can write to /etc/credstore.encrypted')]);
    },
  );

  test('the page has each of them in its host form, and none in a block that reads as one sequence', () => {
    const host = /## On a host\n([\s\S]*?)(?=\n## |$)/.exec(page)?.[1] ?? '';
    for (const name of ['backup', 'restore', 'rekey', 'salvage', 'audit verify']) expect(host).toContain(`runuser -u kms-agent -- kms-agent ${name} --system`);
    const blocks = [...host.matchAll(/^```sh\n(.*?)^```/gms)].map(([, commands = '']) => commands.trim().split('\n'));
    expect(blocks).toEqual([['systemctl stop kms-agent.socket kms-agent.service'], ['systemctl start kms-agent.socket kms-agent.service']]);
  });

  test('config show names its places', async () => {
    const { stdout } = await run(agentProgram, ['config', 'show', '--system', '--json'], { env });
    expect(JSON.parse(stdout.toString())).toMatchObject({
      places: {
        dataDir: { path: '/var/lib/kms-agent', from: '--system' },
        auditDir: { path: '/var/log/kms-agent', from: '--system' },
        configFile: { path: '/etc/kms-agent/config.json', from: '--system' },
        socketPath: { path: '/run/kms-agent/agent.sock', from: '--system' },
      },
    });
  });
});
