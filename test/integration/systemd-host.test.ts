import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { passphrase, repository, TempFolder } from '../kit/agent.ts';
import { installPackages, SystemdContainer, systemdBackends } from '../kit/systemd-container.ts';

const slow = 300_000;
const guide = readFileSync(join(repository, 'daemon', 'README.md'), 'utf8');
const tree = '/usr/lib/kms-agent';
const unit = '/etc/systemd/system/kms-agent.service';
const config = '/etc/kms-agent/config.json';
const credential = '/etc/credstore.encrypted/kms-agent-root';

describe.skipIf(systemdBackends.length === 0)('a host that is not as install left it (needs root and systemd)', { timeout: slow }, () => {
  const made = new AsyncDisposableStack();
  const folder = made.use(new TempFolder());
  let host: SystemdContainer;

  let note: string | undefined;
  const install = async (...args: string[]): Promise<Record<string, string>> => {
    const said = await host.sh(`PATH=/opt/kms-agent/bin:$PATH kms-agent install --system --json --passphrase-fd 0 ${args.join(' ')}`, { input: passphrase });
    const answer = JSON.parse(said) as { steps: { name: string; outcome: string }[]; note?: string };
    note = answer.note;
    return Object.fromEntries(answer.steps.map(({ name, outcome }) => [name, outcome]));
  };
  const doctor = async (user = 'root'): Promise<string> => (await host.run(['runuser', '-u', user, '--', 'kms-agent', 'doctor', '--system'])).stdout;

  const show = async (property: string): Promise<string> => await host.sh(`systemctl show --property=${property} --value kms-agent.service`);
  /** A kms-agent command of a user with an agent of her own. @param env - what changes her environment. */
  const asAlice = (env: string, command: string): string =>
    `cd /home/alice; XDG_RUNTIME_DIR=/run/user/$(id -u alice) runuser -u alice -- ${env} HOME=/home/alice PATH=/opt/kms-agent/bin:/usr/bin:/bin kms-agent ${command}`;

  /** Puts the host right again, however the test ends. */
  const afterwards = (lines: string, options: { input?: string } = {}): void => onTestFinished(async () => void (await host.sh(lines, options)));

  beforeAll(async () => {
    const prefix = installPackages(folder);
    host = made.use(await SystemdContainer.boot({ binds: [`${prefix}:/opt/kms-agent`] }));
    await host.sh('useradd -m alice');
    await install();
  }, 2 * slow);
  afterAll(async () => await made.disposeAsync(), slow);

  describe('a program that another than root can change', () => {
    test.each([
      ['files of somebody else', `chown -R nobody ${tree}/node_modules/koffi`, `chown -R root ${tree}/node_modules/koffi`],
      ['files that everybody can write', `chmod -R o+w ${tree}/node_modules/@kms-agent`, `chmod -R o-w ${tree}/node_modules/@kms-agent`],
      ['a folder that a group can write', `chmod g+w ${tree}/node_modules`, `chmod g-w ${tree}/node_modules`],
      ['the folder of it all, that a group can write', `chmod g+w ${tree}`, `chmod g-w ${tree}`],
      ['a link in the place of a file', `mv ${tree}/bin/kms /root/kms; ln -s /root/kms ${tree}/bin/kms`, `mv /root/kms ${tree}/bin/kms`],
    ])('%s: doctor names it, and install would replace it', async (_name, change, undo) => {
      expect(await doctor()).toMatch(/^ok {5}program: \/usr\/lib\/kms-agent, which only root can change$/m);
      afterwards(undo);
      await host.sh(change);
      expect(await doctor('alice')).toMatch(/^WRONG {2}program: \/usr\/lib\/kms-agent[/ ].*To mend it: \/opt\/kms-agent\/bin\/kms-agent install --system/m);
      expect(await install('--dry-run')).toMatchObject({ program: 'would' });
    });

    test('install puts the program there anew, and restarts what may have run the other', async () => {
      afterwards(`chown -R root ${tree}/node_modules/koffi`);
      await host.sh(`chown -R nobody ${tree}/node_modules/koffi`);
      expect(await install()).toMatchObject({ program: 'done', restart: 'done' });
      expect(await host.sh(`find ${tree} ! -user root -o -perm /022 -o -type l`)).toBe('');
      expect(await doctor()).toMatch(/^ok {5}program: /m);
    });
  });

  test('doctor --system, asked by others: what they may not see is not "not there", and nobody is told to take files over', async () => {
    await host.sh('systemctl start kms-agent.service');
    for (const user of ['alice', 'nobody', 'kms-agent']) {
      const found = await doctor(user);
      expect(found).not.toMatch(/chown|is not there|credential: no keyslot/);
      expect(found).toMatch(/^WRONG {2}credential: .* cannot be seen by this user\. To mend it: run doctor as root\.$/m);
      expect(found).toMatch(/^WRONG {2}agent: .*EACCES.*To mend it: run doctor as root, or as one who may connect\.$/m);
    }
    expect(await doctor('alice')).toMatch(/^WRONG {2}audit folder: EACCES.*To mend it: run doctor as root or as the agent's own user\.$/m);
    expect(await doctor('kms-agent')).toMatch(/^ok {5}audit folder: \/var\/log\/kms-agent, 1 file/m);
    expect(await doctor()).toMatch(/^ok {5}credential: \/etc\/credstore\.encrypted\/kms-agent-root$/m);
    afterwards('chown kms-agent /var/log/kms-agent');
    await host.sh('chown nobody /var/log/kms-agent');
    expect(await doctor()).toMatch(/^WRONG {2}audit folder: \/var\/log\/kms-agent belongs to uid \d+, and not to uid (\d+)\. To mend it: chown \1 /m);
  });

  describe('install --dry-run', () => {
    test('of an upgrade: says that the agent will be restarted', async () => {
      await host.sh(`systemctl start kms-agent.service; echo >> ${tree}/bin/kms`);
      expect(await install('--dry-run')).toMatchObject({ program: 'would', units: 'already', restart: 'would' });
      expect(await install()).toMatchObject({ program: 'done', restart: 'done' });
      await host.sh(`echo '# changed' >> ${unit}; systemctl daemon-reload`);
      expect(await install('--dry-run')).toMatchObject({ program: 'already', units: 'would', restart: 'would' });
      expect(await install()).toMatchObject({ units: 'done', restart: 'done' });
      expect(new Set(Object.values(await install('--dry-run')))).toEqual(new Set(['already']));
    });

    test('of a vault that no credential opens: says that a person must unlock', async () => {
      await install('--dry-run');
      expect(note).toBeUndefined();
      afterwards('mv /root/vault.db /var/lib/kms-agent');
      await host.sh('mv /var/lib/kms-agent/vault.db /root');
      await install('--dry-run', '--no-credential');
      expect(note).toMatch(/after each start of the agent somebody must run kms unlock/);
    });
  });

  describe('what would stop an installation is looked at before anything is changed', () => {
    test.each([
      ['a setting that is mistyped', `echo '{"maxDepth": "deep"}' > ${config}`, /Nothing was changed, because the agent would not start: .*maxDepth/],
      ['settings that the agent’s user cannot read', `chmod 600 ${config}`, /Nothing was changed, because the agent would not start: .*kms-agent may not read/],
    ])('%s', async (_name, change, words) => {
      await host.sh(`kms status >/dev/null; cp -p ${config} /root/config.json; cp -p ${tree}/bin/kms /root/kms; ${change}; echo '# old' >> ${tree}/bin/kms`);
      afterwards(`cp -p /root/config.json ${config}; cp -p /root/kms ${tree}/bin/kms; systemctl reset-failed; systemctl start kms-agent.socket`);
      const pid = await show('MainPID');
      await expect(install('--dry-run')).rejects.toThrow(words);
      await expect(install()).rejects.toThrow(words);
      expect(await host.sh(`tail -n 1 ${tree}/bin/kms`)).toBe('# old'); // the program of before
      expect([await show('MainPID'), await show('ActiveState')]).toEqual([pid, 'active']);
    });

    test('no systemd of the user: says how to come by one, and writes no unit', async () => {
      const { code, stderr } = await host.run(['bash', '-c', asAlice('env -u XDG_RUNTIME_DIR', 'install --user')]);
      expect([code, stderr]).toEqual([1, expect.stringMatching(/No systemd answers: .* To mend it: .*loginctl enable-linger.*Nothing was changed\.\n$/s)]);
      expect((await host.run(['ls', '-A', '/home/alice/.config'])).stdout).toBe('');
    });
  });

  test('doctor of a user: her units where they are installed, as they are shipped, and what they run', async () => {
    const found = async (): Promise<string> => await host.sh(`${asAlice('env', 'doctor')} || true`);
    const service = '/home/alice/.config/systemd/user/kms-agent.service';
    const reload = asAlice('env', 'doctor').replace(/kms-agent doctor$/, 'systemctl --user daemon-reload');
    await host.sh('loginctl enable-linger alice; for i in $(seq 200); do [ -S /run/user/$(id -u alice)/systemd/private ] && break; sleep 0.1; done');
    expect(await found()).not.toMatch(/^\w+ +(systemd|unit|state of)/m); // there are none
    await host.sh(asAlice('env', 'install --user'));
    expect(await found()).toMatch(/^ok {5}unit \/home\/alice\/.*kms-agent\.service: .* as shipped$/m);
    expect(await found()).toMatch(/^ok {5}state of kms-agent\.socket: active/m);
    await host.sh(`cp -p ${service} /root/service; sed -i s/NoNewPrivileges=yes/NoNewPrivileges=no/ ${service}; ${reload}`);
    expect(await found()).toMatch(/^WRONG {2}unit .*kms-agent\.service is not the unit of this version\. To mend it: kms-agent install --user/m);
    await host.sh(`cp -p /root/service ${service}; sed -i 's#^ExecStart="[^"]*"#ExecStart="/opt/old/node"#' ${service}; ${reload}`);
    expect(await found()).toMatch(/^WRONG {2}unit .*kms-agent\.service runs \/opt\/old\/node, which is not there\. To mend it: kms-agent install --user/m);
    await host.sh(`echo '{"maxDepth": "deep"}' > /home/alice/.config/bad; cd /home/alice/.config; mkdir -p kms-agent; mv bad kms-agent/config.json`);
    await expect(host.sh(asAlice('env', 'install --user'))).rejects.toThrow(/Nothing was changed, because the agent would not start: .*maxDepth/);
    expect(await host.sh(`grep -c /opt/old/node ${service}`)).toBe('1');
    await host.sh(`rm /home/alice/.config/kms-agent/config.json; ${asAlice('env', 'install --user')}`);
    expect(await found()).toMatch(/^ok {5}unit \/home\/alice\/.*kms-agent\.service: /m);
  });

  test('doctor --system: a service that crashes at each start is wrong, also between two tries', async () => {
    const dropIns = '/run/systemd/system/kms-agent.service.d';
    const crash = '[Service]\nExecStart=\nExecStart=/bin/sh -c "sleep 2; exit 1"\n';
    const units = 'kms-agent.socket kms-agent.service';
    afterwards(`systemctl stop ${units}; rm -rf ${dropIns}; systemctl daemon-reload; systemctl reset-failed; systemctl start ${units}`);
    await host.sh(`systemctl stop kms-agent.service; mkdir -p ${dropIns}; printf '${crash.replaceAll('\n', '\\n')}' > ${dropIns}/crash.conf`);
    await host.sh('systemctl daemon-reload; systemctl start --no-block kms-agent.service');
    for (let tries = 0; (await show('NRestarts')) === '0' && tries < 600; tries += 1) await delay(100);
    expect(await doctor()).toMatch(
      /^WRONG {2}state of kms-agent\.service: activating, .*started again by itself .*: its start ends each time\. To mend it: see journalctl -u/m,
    );
  });

  test('a filter of system calls that forbids mlock: doctor names it, and not a limit that is high enough', async () => {
    const found = await host.sh(
      `systemd-run --quiet --pipe --wait -p SystemCallFilter=~mlock -p SystemCallErrorNumber=EPERM -p LimitMEMLOCK=8M /usr/bin/kms-agent doctor || true`,
    );
    expect(found).toMatch(
      /^WRONG {2}protection secureHeapLocked: 0 bytes are locked, and the limit is \d+, but mlock\(2\) is refused with EPERM\. To mend it: allow the system call mlock/m,
    );
  });

  test('the figures: what the guide says puts them where node_exporter reads them', async () => {
    const [, lines = ''] = /^```\n(mkdir -p \/var\/lib\/node_exporter\n[\s\S]*?)```/m.exec(guide) ?? [];
    await host.sh(lines);
    expect(await host.sh('systemctl is-active kms-agent-figures.timer')).toBe('active');
    afterwards('rm -f /root/victim');
    await host.sh('echo whole > /root/victim; cd /var/lib/node_exporter; chown nobody .; ln -sf /root/victim kms-agent.prom.new');
    await host.sh('systemctl start kms-agent-figures.service');
    expect(await host.sh('cat /root/victim')).toBe('whole');
    expect(await host.sh('stat -c %a /var/lib/node_exporter/kms-agent.prom; grep ^kms_agent_unlocked /var/lib/node_exporter/*.prom')).toBe(
      '644\nkms_agent_unlocked 1',
    );
    await host.sh('systemctl disable --now kms-agent-figures.timer');
  });

  test('a vault that was put back: the status says how to go on, and what the guide says of it does', async () => {
    const [, lines = ''] = /^```\n(drop_ins=[\s\S]*?)```/m.exec(guide) ?? [];
    await host.sh('systemctl stop kms-agent.socket kms-agent.service; cp -p /var/lib/kms-agent/vault.db /root/vault.db');
    await host.sh('systemctl start kms-agent.socket; kms key create; systemctl stop kms-agent.socket kms-agent.service');
    await host.sh('cp -p /root/vault.db /var/lib/kms-agent; systemctl start kms-agent.socket; kms status >/dev/null');
    const said = await show('StatusText');
    expect(said).toMatch(/--accept-rollback \d+; how systemd does that, the operator's guide says: An older vault; run kms unlock$/);
    expect(guide).toContain('**An older vault**');
    const revision = /--accept-rollback (\d+)/.exec(said)?.[1] ?? '';
    await host.sh(lines.replace('/41/', `/${revision}/`));
    expect(await show('StatusText')).toBe('unlocked, 1 key');
    await host.sh('systemctl restart kms-agent.service');
    expect([await show('StatusText'), await show('DropInPaths')]).toEqual(['unlocked, 1 key', '']);
  });

  test('install: says that a person must unlock where the vault has a passphrase only', async () => {
    const { keyslots } = JSON.parse(await host.sh('kms keyslot list --json')) as { keyslots: { keyslotId: string; type: string }[] };
    const { keyslotId } = keyslots.find(({ type }) => type === 'credential') ?? { keyslotId: '' };
    const add = `systemctl stop kms-agent.socket kms-agent.service; rm -f ${credential}; kms-agent keyslot add credential --system --passphrase-fd 0`;
    afterwards(`${add}; systemctl start kms-agent.socket`, { input: passphrase });
    await host.sh(`kms keyslot remove ${keyslotId} --passphrase-fd 0`, { input: passphrase });
    await install();
    expect(note).toMatch(/after each start of the agent somebody must run kms unlock, .*ERR_AGENT_LOCKED/);
  });
});
