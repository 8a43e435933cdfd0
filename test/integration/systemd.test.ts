import { cpSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { passphrase, repository, TempFolder } from '../kit/agent.ts';
import { installPackages, SystemdContainer, systemdBackends } from '../kit/systemd-container.ts';

const slow = 300_000;
const runDropIns = '/run/systemd/system/kms-agent.service.d';
const credential = '/etc/credstore.encrypted/kms-agent-root';

const hasTpm = ['/usr/bin/swtpm', '/usr/bin/tpm2_flushcontext'].every((path) => existsSync(path));
const tpmVariable = 'SYSTEMD_TPM2_DEVICE=swtpm:host=127.0.0.1,port=2321';

/** What `kms-agent install --json` prints. */
interface Installed {
  readonly steps: readonly { readonly name: string; readonly outcome: string; readonly result?: Readonly<Record<string, string>> }[];
}

describe.skipIf(systemdBackends.length === 0)('under a real systemd (needs root and systemd)', { timeout: slow }, () => {
  const made = new AsyncDisposableStack();
  const folder = made.use(new TempFolder());
  let host: SystemdContainer;
  let prefix = '';
  let first: Installed;
  let recoveryCode = '';

  const show = async (property: string, unit = 'kms-agent.service'): Promise<string> => await host.sh(`systemctl show --property=${property} --value ${unit}`);
  const status = async (): Promise<string> => (JSON.parse(await host.sh('kms status --json')) as { state: string }).state;
  const install = async (...args: string[]): Promise<Installed> =>
    JSON.parse(
      await host.sh(`PATH=/opt/kms-agent/bin:$PATH kms-agent install --system --json --passphrase-fd 0 ${args.join(' ')}`, { input: passphrase }),
    ) as Installed;
  const outcomes = ({ steps }: Installed): Record<string, string> => Object.fromEntries(steps.map(({ name, outcome }) => [name, outcome]));
  /** Waits for a property of the service. */
  const until = async (property: string, wanted: RegExp): Promise<string> => {
    for (let tries = 0; tries < 600; tries += 1) {
      const value = await show(property);
      if (wanted.test(value)) return value;
      await delay(100);
    }
    throw new Error(`${property} is ${await show(property)}: ${await host.sh('journalctl --no-pager -n 50 -u kms-agent.service -u kms-agent.socket')}`);
  };
  /** Puts the service back as it was after a test that made it fail. */
  const recover = async (): Promise<void> => {
    await host.sh(
      `systemctl stop kms-agent.socket kms-agent.service; cp -p /root/credential ${credential}; systemctl reset-failed; systemctl start kms-agent.socket`,
    );
  };

  beforeAll(async () => {
    prefix = installPackages(folder);
    cpSync(join(repository, 'test/kit/inside'), folder.join('inside'), { recursive: true });
    host = made.use(await SystemdContainer.boot({ binds: [`${prefix}:/opt/kms-agent`, `${folder.join('inside')}:/opt/inside`], env: [tpmVariable] }));
  }, 2 * slow);
  afterAll(async () => await made.disposeAsync(), slow);

  test('install --system --dry-run: says what it would do, and does nothing', async () => {
    const planned = outcomes(await install('--dry-run'));
    expect(Object.values(planned)).not.toContain('done');
    expect(planned).toMatchObject({ program: 'would', accounts: 'would', vault: 'would', credential: 'would', units: 'would', socket: 'would' });
    expect((await host.run(['ls', '-d', '/usr/lib/kms-agent', '/var/lib/kms-agent', '/etc/kms-agent', '/usr/bin/kms'])).stdout).toBe('');
    expect(await host.sh(`ls -A ${repository} 2>/dev/null || true`)).toBe(''); // no sources, where the folder is at all
  });

  test('install --system: one command, and the host has an agent that unlocks by itself', async () => {
    first = await install();
    expect(new Set(Object.values(outcomes(first)))).toEqual(new Set(['done', 'already']));
    recoveryCode = first.steps.find(({ name }) => name === 'vault')?.result?.['recoveryCode'] ?? '';
    expect(recoveryCode).toMatch(/^([0-9A-Z]{4}-){13}[0-9A-Z]{4}$/);
    expect(first.steps.at(-1)?.result).toEqual({ status: 'unlocked, 1 key' });
    expect(await status()).toBe('UNLOCKED');
    expect(await host.sh(`stat -c '%U %a' /usr/lib/kms-agent /var/lib/kms-agent /var/lib/kms-agent/vault.db /var/log/kms-agent ${credential}`)).toBe(
      'root 755\nkms-agent 700\nkms-agent 600\nkms-agent 700\nroot 600',
    );
    expect(await host.sh("stat -c '%U %G %a' /run/kms-agent/agent.sock /run/kms-agent")).toBe('root kms-users 660\nroot root 755');
    expect(await host.sh('find /usr/lib/kms-agent ! -user root -o -perm /022 ! -type l')).toBe('');
    expect(await host.sh("stat -c '%U %a' /usr/lib/kms-agent/bin/node")).toBe('root 711'); // nobody opens the memory of what runs it
    const { protections } = JSON.parse(await host.sh('kms status --json')) as { protections: { name: string; on: boolean }[] };
    expect(protections).toContainEqual(expect.objectContaining({ name: 'shutFromTheStart', on: true }));
    await host.sh(`cp -p ${credential} /root/credential`);
    for (const name of ['kms', 'kms-agent']) {
      expect(await host.sh(`grep -m1 '^.TH' /usr/share/man/man1/${name}.1`)).toContain(`.TH ${name.toUpperCase()} 1 `);
      for (const file of [`zsh/vendor-completions/_${name}`, `fish/vendor_completions.d/${name}.fish`]) {
        const [folder, path] = [`/usr/share/${file.replace(/[^/]*$/, '')}`, `/usr/share/${file}`];
        expect(await host.sh(`[ ! -d ${folder} ] || grep -c ${name} ${path}`)).toMatch(/^(|[1-9]\d*)$/); // where that shell is there
      }
      const complete = `source /usr/share/bash-completion/completions/${name}; complete -p ${name}`;
      expect(await host.sh(`bash --norc -c '${complete}'`)).toContain(`-F _${name.replace('-', '_')} ${name}`);
    }
  });

  test('install --system again: changes nothing', async () => {
    const again = await install();
    expect(new Set(Object.values(outcomes(again)))).toEqual(new Set(['already']));
    expect(JSON.stringify(again)).not.toContain('recoveryCode');
    const changed = await host.sh(
      'cp -r /opt/kms-agent /tmp/open && chmod o+w /tmp/open/lib && PATH=/tmp/open/bin:$PATH kms-agent install --system --dry-run 2>&1 || echo refused $?',
    );
    expect(changed).toMatch(/can be written by others than root.*\nrefused 1$/s);
  });

  test('the lines of the guide install and upgrade; the installed program says that it upgrades nothing', async () => {
    const guide = readFileSync(join(repository, 'daemon/README.md'), 'utf8');
    const line = /^npm install --global --prefix \/opt\/kms-agent .*\n(.*install --system)\b/m.exec(guide)?.[1] ?? '';
    // Node is in PATH, and what npm put into its prefix is not.
    const run = 'mkdir -p /tmp/node; cp /opt/kms-agent/bin/node /tmp/node; echo >> /usr/lib/kms-agent/bin/kms; PATH=/tmp/node:$PATH';
    expect(outcomes(JSON.parse(await host.sh(`${run} ${line} --json`)) as Installed)).toMatchObject({ program: 'done' });
    expect(await host.sh('kms-agent install --system')).toContain('Nothing was upgraded: this is the installed program itself.');
    expect(await host.sh(`PATH=/tmp/node:$PATH ${line}`)).not.toContain('Nothing was upgraded');
  });

  test('an upgrade that stops halfway: a foreign file stops it before anything changed, and the next run restarts what runs the old program', async () => {
    const link = '/usr/share/man/man1/kms.1';
    await host.sh(`kms status >/dev/null; rm ${link}; echo foreign > ${link}; echo >> /usr/lib/kms-agent/bin/kms`);
    await expect(install()).rejects.toThrow(/kms\.1 is there/);
    expect(await host.sh('tail -c 1 /usr/lib/kms-agent/bin/kms | od -An -c; tail -n 1 /usr/lib/kms-agent/bin/kms')).toBe('\\n'); // the old program, still
    const pid = await show('MainPID');
    await host.sh(
      `rm ${link}; cp -a /usr/lib/kms-agent /usr/lib/kms-agent.other; mv /usr/lib/kms-agent /root/old; mv /usr/lib/kms-agent.other /usr/lib/kms-agent`,
    );
    expect(outcomes(await install())).toMatchObject({ commands: 'done', restart: 'done' });
    expect(await show('MainPID')).not.toBe(pid);
    const running = await show('MainPID');
    await host.sh('echo "# changed" >> /etc/systemd/system/kms-agent.service');
    await host.sh('cp /opt/kms-agent/lib/node_modules/@kms-agent/daemon/systemd/kms-agent.service /etc/systemd/system/');
    expect(outcomes(await install())).toMatchObject({ program: 'already', units: 'done', restart: 'done' });
    expect(await show('MainPID')).not.toBe(running);
    expect(new Set(Object.values(outcomes(await install())))).toEqual(new Set(['already']));
  });

  test('the first connection starts the agent; the time to the first answer', async () => {
    await host.sh('systemctl stop kms-agent.service');
    expect(await show('ActiveState')).toBe('inactive');
    expect(await status()).toBe('UNLOCKED');
    expect(await show('StatusText')).toBe('unlocked, 1 key');
    expect(await show('TriggeredBy')).toBe('kms-agent.socket');
    expect(await host.sh('systemctl status kms-agent | grep Status:')).toContain('Status: "unlocked, 1 key"');
    const pool = await host.sh(
      `for task in /proc/${await show('MainPID')}/task/*; do grep -q libuv-worker $task/comm && cut -d ' ' -f 41 $task/stat; done | sort | uniq -c`,
    );
    expect(pool.trim()).toBe('4 3'); // all of the pool are SCHED_BATCH, also in the sandbox
    expect(await host.sh('journalctl -o json -u kms-agent.service | grep -c "unlocked without a person"')).not.toBe('0');
    await host.sh('systemctl stop kms-agent.service');
    const [started, answered] = (
      await host.sh(
        'a=$(date +%s%N); systemctl start kms-agent.service; b=$(date +%s%N); kms status >/dev/null; c=$(date +%s%N); echo $(( (b-a)/1000000 )) $(( (c-a)/1000000 ))',
      )
    ).split(' ');
    console.log(`from systemctl start: ready after ${started} ms, kms status has printed its first answer after ${answered} ms`);
  });

  test('kms lock stays locked, and says so; unlock without a secret takes the credential', async () => {
    await host.sh('kms lock');
    expect(await show('StatusText')).toBe('locked, no keys in memory; run kms unlock');
    await host.sh(
      'node=/usr/lib/kms-agent/bin/node; echo "import {connect} from \'/usr/lib/kms-agent/node_modules/@kms-agent/client/dist/index.js\'; const kms = await connect(); await kms.unlock({}); kms.close();" > /tmp/unlock.mjs; $node /tmp/unlock.mjs',
    );
    expect(await show('StatusText')).toBe('unlocked, 1 key');
  });

  test('the sandbox: what runs in the unit writes nowhere else, opens no network, sees no home, and still sees its callers', async () => {
    await host.sh(
      [
        'id alice >/dev/null 2>&1 || useradd -m alice; touch /home/alice/marker /tmp/marker',
        'sed -e "s#^ExecStart=.*#ExecStart=/usr/lib/kms-agent/bin/node /opt/inside/probe.mjs#; s#^Type=.*#Type=oneshot#; /^Restart/d; /^WatchdogS/d; /^Requires/d" /etc/systemd/system/kms-agent.service > /run/systemd/system/probe.service',
        'systemctl daemon-reload; systemctl start probe.service || { journalctl -o cat -u probe.service; exit 1; }',
      ].join('\n'),
    );
    const found = JSON.parse(await host.sh('journalctl -o cat -u probe.service | grep "^{"')) as Record<string, unknown>;
    expect(found).toMatchObject({
      writes: {
        '/etc/x': 'EROFS',
        '/usr/x': 'EROFS',
        '/var/lib/x': 'EROFS',
        '/run/x': expect.stringMatching(/^EROFS|EACCES$/) as string,
        '/run/kms-agent/x': expect.stringMatching(/^EROFS|EACCES$/) as string,
        '/var/lib/kms-agent/probe': 'done',
        '/var/log/kms-agent/probe': 'done',
        '/tmp/x': 'done',
      },
      lists: { '/home': expect.stringMatching(/^EACCES|done$/) as string, '/root': 'EACCES' },
      marker: false,
      inet: 'EAFNOSUPPORT',
      unix: 'ENOENT',
      interfaces: ['lo'],
      namespaces: expect.stringContaining('Operation not permitted') as string,
      callers: true,
      noNewPrivileges: '1',
      seccomp: '2',
      capabilities: ['0000000000000000', '0000000000000000'],
      credentials: 'done',
      variables: [],
    });
    await host.sh('rm /var/lib/kms-agent/probe /var/log/kms-agent/probe /run/systemd/system/probe.service /tmp/marker; systemctl daemon-reload');
    const pid = await show('MainPID');
    const own = await host.sh(
      `grep -E "^(NoNewPrivs|Seccomp|CapEff|CapBnd):" /proc/${pid}/status | tr -s "\\t" " "; grep -E "^Max core file size" /proc/${pid}/limits`,
    );
    expect(own).toMatch(/NoNewPrivs: 1/);
    expect(own).toMatch(/Seccomp: 2/);
    expect(own).toMatch(/CapEff: 0{16}/);
    expect(own).toMatch(/Max core file size +0 +0/);
    expect(
      (await host.sh(`tr '\\0' '\\n' < /proc/${pid}/environ`)).split('\n').filter((line) => /^(NODE_OPTIONS|LD_PRELOAD|OPENSSL_CONF)=/.test(line)),
    ).toEqual([]);
  });

  test('restart under load: 16 clients at work, ten restarts, no call lost', async () => {
    const before = await show('InvocationID');
    const result = await host.sh(
      [
        'mkfifo /tmp/load; echo 0 > /tmp/restarts; /usr/lib/kms-agent/bin/node /opt/inside/load.mjs 16 /tmp/restarts < /tmp/load > /tmp/load.json & exec 8> /tmp/load',
        'for i in $(seq 10); do systemctl restart kms-agent.service; echo $i > /tmp/next; mv /tmp/next /tmp/restarts; done; sleep 0.5; exec 8>&-; wait; cat /tmp/load.json', // without a pause: as fast as a script is
      ].join('\n'),
      { timeoutMs: slow },
    );
    const { calls, failures, keys, missing, longestMs, mostRestarts } = JSON.parse(result) as {
      calls: number;
      failures: string[];
      keys: number;
      missing: number;
      longestMs: number;
      mostRestarts: number;
    };
    console.log(
      `16 clients, 10 restarts: ${calls} calls answered, ${failures.length} lost, ${keys} keys made, ${missing} of them missing, longest call ${longestMs} ms over ${mostRestarts} restarts`,
    );
    expect(failures).toEqual([]);
    expect(mostRestarts).toBeLessThanOrEqual(2);
    expect([missing, calls > 0, keys > 0]).toEqual([0, true, true]);
    expect(await show('InvocationID')).not.toBe(before);
    expect(await show('Result')).toBe('success');
  });

  test('an agent that is killed comes back, and unlocks', async () => {
    const pid = await show('MainPID');
    await host.sh(`kill -KILL ${pid}`);
    await until('MainPID', new RegExp(`^(?!${pid}$|0$)`));
    await until('StatusText', /^unlocked/);
    expect(await status()).toBe('UNLOCKED');
  });

  test('an agent whose loop stands still is killed by the watchdog, without a core, and comes back', async () => {
    await host.sh(
      `mkdir -p ${runDropIns}; printf "[Service]\\nWatchdogSec=5s\\n" > ${runDropIns}/watchdog.conf; systemctl daemon-reload; systemctl restart kms-agent.service`,
    );
    const pid = await show('MainPID');
    await host.sh(`kill -STOP ${pid}`);
    await until('MainPID', new RegExp(`^(?!${pid}$|0$)`));
    await until('StatusText', /^unlocked/);
    expect(await host.sh('journalctl -o cat -u kms-agent.service | grep -c "Watchdog timeout"')).not.toBe('0');
    expect(await host.sh('journalctl -o cat -u kms-agent.service | grep "Main process exited" | tail -1')).toContain('status=9/KILL');
    await host.sh(`rm -r ${runDropIns}; systemctl daemon-reload; systemctl restart kms-agent.service`);
  });

  test('reload: the settings are read again, and bad ones change nothing', async () => {
    await host.sh('systemctl reload kms-agent.service');
    await until('ActiveState', /^active$/);
    expect(await host.sh('journalctl -o cat -u kms-agent.service | grep -c "settings read again"')).toBe('1');
    await host.sh('cp /etc/kms-agent/config.json /root; echo \'{"maxDepth": "deep"}\' > /etc/kms-agent/config.json; systemctl reload kms-agent.service');
    await until('StatusText', /^unlocked, \d+ keys?; the last reload was refused, the settings from before hold: .*maxDepth/);
    expect([await show('ActiveState'), await status()]).toEqual(['active', 'UNLOCKED']);
    expect(await host.sh('journalctl -o cat -u kms-agent.service | grep -c "reload refused"')).toBe('1');
    await host.sh('cp /root/config.json /etc/kms-agent/config.json; systemctl reload kms-agent.service');
    await until('StatusText', /^unlocked, \d+ keys?$/);
  });

  test('bad settings: the start fails with 2 and is not tried again', async () => {
    await host.sh(
      'systemctl stop kms-agent.socket kms-agent.service; cp /etc/kms-agent/config.json /root; echo \'{"maxDepth": "deep"}\' > /etc/kms-agent/config.json',
    );
    expect((await host.run(['systemctl', 'start', 'kms-agent.service'])).code).not.toBe(0);
    expect([await show('ExecMainStatus'), await show('NRestarts'), await show('ActiveState')]).toEqual(['2', '0', 'failed']);
    expect(await host.sh('journalctl -o cat -u kms-agent.service | grep "kms-agent: ERR_STATE_CONFLICT" | grep -c maxDepth')).toBe('1');
    await host.sh('cp /root/config.json /etc/kms-agent/config.json');
    await recover();
    expect(await status()).toBe('UNLOCKED');
  });

  test('settings that cannot be seen or have gone: a reload keeps their policy, a start fails with 2, and an installation puts settings in place', async () => {
    const deny = { statements: [{ effect: 'Deny', principals: ['*'], actions: ['createKey'] }] };
    const create = async (): Promise<string> => (await host.run(['kms', 'key', 'create'])).stderr;
    await host.sh(`cp /etc/kms-agent/config.json /root; echo '${JSON.stringify({ policy: deny })}' > /etc/kms-agent/config.json; systemctl restart kms-agent`);
    await host.sh('chmod 700 /etc/kms-agent; systemctl reload kms-agent.service');
    await until('StatusText', /^unlocked, \d+ keys?; the last reload was refused, .*: .*kms-agent may not search \/etc\/kms-agent;/);
    expect(await create()).toContain('ERR_ACCESS_DENIED');
    await host.sh('chmod 755 /etc/kms-agent; mv /etc/kms-agent/config.json /root/deny.json; systemctl reload kms-agent.service');
    await until('StatusText', /^unlocked, \d+ keys?; the last reload was refused, .*: There is no settings file \/etc\/kms-agent\/config\.json/);
    expect(await create()).toContain('ERR_ACCESS_DENIED');
    await host.sh('systemctl stop kms-agent.socket kms-agent.service');
    expect((await host.run(['systemctl', 'start', 'kms-agent.service'])).code).not.toBe(0);
    expect([await show('ExecMainStatus'), await show('NRestarts'), await show('ActiveState')]).toEqual(['2', '0', 'failed']);
    await host.sh('ln -s /root/gone.json /etc/kms-agent/config.json');
    await expect(install('--dry-run')).rejects.toThrow(/Nothing was changed, because the agent would not start: .*kms-agent may not search \/root/); // a link is somebody's settings too
    await host.sh('rm /etc/kms-agent/config.json; systemctl reset-failed');
    expect(outcomes(await install())['settings']).toBe('done');
    await host.sh('cp /root/config.json /etc/kms-agent/config.json');
    await recover();
    expect(await status()).toBe('UNLOCKED');
  });

  test('settings that root can read and the agent cannot: config check and doctor, asked by root, say so', async () => {
    const ask = async (): Promise<string[]> => {
      const { stderr } = await host.run(['kms-agent', 'config', 'check', '--system']);
      const { stdout } = await host.run(['kms-agent', 'doctor', '--system']);
      return [stderr, stdout];
    };
    for (const [place, mode, words] of [
      ['/etc/kms-agent/config.json', '600', /kms-agent, who runs the agent, may not read \S+config\.json; run: chmod a\+r \S+config\.json$/m],
      ['/etc/kms-agent', '700', /kms-agent, who runs the agent, may not search \/etc\/kms-agent; run: chmod a\+x \/etc\/kms-agent$/m],
    ] as const) {
      const before = await host.sh(`stat -c %a ${place}; chmod ${mode} ${place}`);
      const said = await ask();
      await host.sh(`chmod ${before} ${place}`);
      expect(said).toEqual([expect.stringMatching(words), expect.stringMatching(words)]);
      expect(said[1]).toMatch(/^WRONG {2}settings: /m);
    }
    expect(await ask()).toEqual(['', expect.stringMatching(/^ok {5}settings: /m)]);
  });

  describe('a credential that is not as it must be', () => {
    const restartWith = async (change: string): Promise<void> => {
      await host.sh(`systemctl stop kms-agent.service; ${change}; systemctl start kms-agent.service`);
    };

    test.each([
      ['missing', `rm ${credential}`, 'is missing'],
      [
        'of another vault',
        `rm ${credential}; head -c 32 /dev/urandom | base64 | tr -d "\\n" | systemd-creds encrypt --name=kms-agent-root - ${credential}`,
        'opens no keyslot of this vault',
      ],
      ['something else', `rm ${credential}; echo hello | systemd-creds encrypt --name=kms-agent-root - ${credential}`, 'does not hold the secret of a keyslot'],
    ])('%s: the agent runs, locked, says why, and makes nothing in its place', async (_name, change, words) => {
      const vault = await host.sh('systemctl stop kms-agent.service; sha256sum /var/lib/kms-agent/vault.db');
      await restartWith(change);
      expect(await show('StatusText')).toBe(`locked, no keys in memory: the credential kms-agent-root ${words}; run kms unlock`);
      expect([await show('ActiveState'), await show('NRestarts'), await status()]).toEqual(['active', '0', 'LOCKED']);
      expect(await host.sh(`journalctl -o cat -u kms-agent.service | grep -c "kms-agent-root ${words}"`)).not.toBe('0');
      expect(await host.sh('systemctl stop kms-agent.service; sha256sum /var/lib/kms-agent/vault.db')).toBe(vault);
      await host.sh('kms unlock --passphrase-fd 0', { input: passphrase });
      expect(await show('StatusText')).toMatch(/^unlocked/);
      await recover();
      expect(await status()).toBe('UNLOCKED');
    });

    const countStarts = async (): Promise<number> => Number(await host.sh('journalctl -o cat -u kms-agent.service | grep -c "^Starting kms-agent"'));

    test('corrupt: 243/CREDENTIALS, no restart; callers do not make a loop of it', async () => {
      await host.sh(`systemctl stop kms-agent.service; head -c 200 /dev/urandom | base64 > ${credential}`);
      const before = await countStarts();
      expect((await host.run(['systemctl', 'start', 'kms-agent.service'])).code).not.toBe(0);
      expect([await show('ExecMainStatus'), await show('NRestarts'), await show('ActiveState')]).toEqual(['243', '0', 'failed']);
      const refused = await host.run(['kms', '--timeout', '3000', 'status']);
      expect(refused.code).toBe(3);
      await delay(3000);
      const starts = await countStarts();
      const settled = await host.sh('systemctl is-active kms-agent.socket kms-agent.service || true');
      await delay(3000);
      expect(await countStarts()).toBe(starts);
      console.log(`a corrupt credential with callers: ${starts - before} starts, then ${settled.trim().replaceAll('\n', ', ')}`);
      expect(settled).not.toContain('activating');
      await recover();
      expect(await status()).toBe('UNLOCKED');
    });
  });

  test.skipIf(!hasTpm)('keyslot add credential --with-key tpm2: opens with the TPM of this host and with no other (needs swtpm and tpm2-tools)', async () => {
    const ports = '--server type=tcp,port=2321,bindaddr=127.0.0.1 --ctrl type=tcp,port=2322,bindaddr=127.0.0.1';
    const startTpm = (state: string): string =>
      `mkdir -p ${state}; swtpm socket --tpm2 --tpmstate dir=${state} ${ports} --flags not-need-init,startup-clear --pid file=/run/swtpm.pid --daemon`;
    // There is no resource manager in front of it: what a use leaves behind would fill it.
    const flush = 'for kind in t l s; do TPM2TOOLS_TCTI=swtpm:host=127.0.0.1,port=2321 tpm2_flushcontext -$kind; done';
    // Its address is an IP address here, and systemd decrypts credentials inside the cgroup of the unit.
    const open = `mkdir -p ${runDropIns}; printf '[Service]\nIPAddressDeny=\n' > ${runDropIns}/tpm.conf; systemctl daemon-reload; ip link set lo up`;
    await host.sh(`systemctl stop kms-agent.socket kms-agent.service; rm ${credential}; ${open}`);
    const add = 'kms-agent keyslot add credential --system --with-key tpm2 --passphrase-fd 0 --json';
    const added = await host.sh(`${startTpm('/run/tpm')}; export ${tpmVariable}; ${add}; ${flush}`, { input: passphrase });
    await host.sh('systemctl start kms-agent.socket kms-agent.service');
    expect(await show('StatusText')).toMatch(/^unlocked/);
    const { keyslots } = JSON.parse(await host.sh('kms keyslot list --json')) as { keyslots: { keyslotId: string; lastUnlockTime?: string }[] };
    const { keyslotId } = JSON.parse(added) as { keyslotId: string };
    expect(keyslots.find((slot) => slot.keyslotId === keyslotId)?.lastUnlockTime).toBeDefined();
    await host.sh(`systemctl stop kms-agent.socket kms-agent.service; kill $(cat /run/swtpm.pid); sleep 0.5; ${startTpm('/run/another-tpm')}`);
    expect((await host.run(['systemctl', 'start', 'kms-agent.service'])).code).not.toBe(0);
    expect([await show('ExecMainStatus'), await show('NRestarts')]).toEqual(['243', '0']);
    await host.sh(`kill $(cat /run/swtpm.pid); rm -r ${runDropIns}; systemctl daemon-reload`);
    await recover();
    expect(await status()).toBe('UNLOCKED');
  });

  test('keyslot add credential: never over one that is there; refused without root, and while the agent runs', async () => {
    const add = 'kms-agent keyslot add credential --system --passphrase-fd 0';
    expect(await host.sh(`${add} 2>&1 || echo refused`, { input: passphrase })).toContain('is there already');
    expect(
      await host.sh(`cp -p ${credential} /root/c; rm ${credential}; ${add} 2>&1 || echo refused; ls ${credential}* || true`, { input: passphrase }),
    ).toMatch(/Another agent holds the vault.*\nrefused$/s);
    expect(await host.sh(`runuser -u nobody -- ${add} 2>&1 || echo refused`, { input: passphrase })).toMatch(/refused$/);
    await recover();
  });

  test('init --system: refused for any other user than the agent’s own', async () => {
    expect(await host.sh('kms-agent init --system --passphrase-fd 0 2>&1 || echo refused', { input: passphrase })).toMatch(
      /ERR_ACCESS_DENIED.*belongs to the user kms-agent.*refused$/s,
    );
  });

  test('a user of the host: not without the group, and not to administrate', async () => {
    expect(await host.sh('runuser -u alice -- kms status 2>&1 || echo refused')).toContain('refused');
    await host.sh('usermod -a -G kms-users alice');
    expect(JSON.parse(await host.sh('runuser -u alice -- kms whoami --json'))).toMatchObject({ user: 'alice', administrator: false });
    expect(await host.sh('runuser -u alice -- kms lock 2>&1 || echo refused')).toContain('ERR_ACCESS_DENIED');
    expect(await host.sh('runuser -u alice -- kms whoami --json')).not.toContain('"exe"');
    const dropIns = '/usr/lib/kms-agent/node_modules/@kms-agent/daemon/systemd/drop-ins';
    await host.sh(`mkdir -p ${runDropIns}; cp ${dropIns}/exe-identity.conf ${runDropIns}; systemctl daemon-reload; systemctl restart kms-agent.service`);
    expect(JSON.parse(await host.sh('runuser -u alice -- kms whoami --json'))).toMatchObject({ exe: '/usr/lib/kms-agent/bin/node' });
    await host.sh(`rm -r ${runDropIns}; systemctl daemon-reload; systemctl restart kms-agent.service; gpasswd -d alice kms-users`);
  });

  test('install --user: the agent of a lingering user starts with the first connection, and goes again', async () => {
    await host.sh('loginctl enable-linger alice; for i in $(seq 200); do [ -S /run/user/$(id -u alice)/systemd/private ] && break; sleep 0.1; done');
    const asAlice = (command: string): string => `cd /home/alice; runuser -u alice -- env HOME=/home/alice XDG_RUNTIME_DIR=/run/user/$(id -u alice) ${command}`;
    const program = 'env PATH=/opt/kms-agent/bin:/usr/bin:/bin kms-agent';
    const installed = JSON.parse(await host.sh(asAlice(`${program} install --user --json`))) as Installed;
    expect(outcomes(installed)).toEqual({ units: 'done', socket: 'done', restart: 'already' });
    expect(await host.sh(asAlice(`${program} init --passphrase-fd 0 --json`), { input: passphrase })).toContain('recoveryCode');
    expect(await host.sh(asAlice('systemctl --user is-active kms-agent.service')).catch(() => 'inactive')).toBe('inactive');
    expect(await host.sh(asAlice('kms status --json'))).toContain('"LOCKED"');
    await host.sh(asAlice('kms unlock --passphrase-fd 0'), { input: passphrase });
    expect(await host.sh(asAlice('systemctl --user show --property=StatusText --value kms-agent.service'))).toBe('unlocked, 1 key');
    expect(await host.sh(asAlice('systemctl --user show --property=MemorySwapMax --value kms-agent.service'))).toBe('0');
    expect(await host.sh(asAlice("bash -c 'echo hello | kms encrypt | kms decrypt'"))).toBe('hello');
    const removed = JSON.parse(await host.sh(asAlice(`${program} uninstall --user --json`))) as { kept: string[] };
    expect(removed.kept).toEqual(['/home/alice/.local/share/kms-agent', '/home/alice/.local/state/kms-agent/audit']);
    expect(await host.sh('ls /home/alice/.config/systemd/user/kms-agent.* 2>&1 || echo gone')).toContain('gone');
  });

  test.skipIf(systemdBackends.length < 2)('without nspawn: the same in a container that unshare makes (needs both)', async () => {
    await using other = await SystemdContainer.boot({ binds: [`${prefix}:/opt/kms-agent`] }, ['unshare']);
    const command = 'PATH=/opt/kms-agent/bin:$PATH kms-agent install --system --json --passphrase-fd 0';
    const installed = JSON.parse(await other.sh(command, { input: passphrase })) as Installed;
    expect(installed.steps.at(-1)?.result).toEqual({ status: 'unlocked, 1 key' });
    expect(await other.sh('kms status --json')).toContain('UNLOCKED');
  });

  describe('--system, as the agent’s own user: what the page Lost the passphrase says of a host', () => {
    const own = (command: string): string => `runuser -u kms-agent -- kms-agent ${command}`;
    const stranger = 'find /var/lib/kms-agent /var/log/kms-agent ! -user kms-agent';
    const backup = '/var/lib/kms-agent/backup.db';

    test('beside the running agent: backup, audit verify, config show and check', async () => {
      expect(await status()).toBe('UNLOCKED');
      expect(await host.sh(`${own(`backup --system ${backup}`)}; stat -c '%U %a' ${backup}`)).toMatch(/^Sealed copy written to .*\nkms-agent 600$/s);
      expect(JSON.parse(await host.sh(own('audit verify --system --passphrase-fd 0 --json'), { input: passphrase }))).toMatchObject({ ok: true });
      expect(JSON.parse(await host.sh(own('config show --system --json')))).toMatchObject({ places: { dataDir: { path: '/var/lib/kms-agent' } } });
      await host.sh(own('config check --system'));
    });

    test('while it is stopped: rekey, salvage, restore and keyslot add leave files that it can use, and it unlocks by itself again', async () => {
      const keys = await host.sh('kms key list --json');
      await host.sh('systemctl stop kms-agent.socket kms-agent.service');
      const rekeyed = JSON.parse(await host.sh(own('rekey --system --passphrase-fd 0 --json'), { input: passphrase })) as {
        droppedKeyslots: { type: string }[];
      };
      expect(rekeyed.droppedKeyslots.map(({ type }) => type)).toContain('credential');
      const salvaged = JSON.parse(await host.sh(own('salvage --system /var/lib/kms-agent/rescued --passphrase-fd 0 --json'), { input: passphrase })) as object;
      expect(salvaged).toMatchObject({ findings: [], saved: expect.any(Number) as number });
      const [aside, vault] = ['/var/lib/kms-agent/aside', '/var/lib/kms-agent/vault.db'];
      await host.sh(
        `${own(`restore --system ${backup}`)} && exit 1; runuser -u kms-agent -- mkdir ${aside}; mv ${vault} ${aside}; ${own(`restore --system ${backup}`)}`,
      );
      expect(await host.sh(`stat -c '%U %a' ${vault} /var/lib/kms-agent/rescued/vault.db; ${stranger}`)).toBe('kms-agent 600\nkms-agent 600');
      await host.sh(`rm ${vault}; mv ${aside}/vault.db ${vault}; rm -r ${aside} ${backup} /var/lib/kms-agent/rescued`);
      const secret = "$(head -c 32 /dev/urandom | base64 | tr -d '\\n')";
      expect(await host.sh(`${own('keyslot add credential --system --passphrase-fd 0 --secret-fd 3')} 3<<<"${secret}"`, { input: passphrase })).toMatch(
        /^Keyslot .* opens with that secret/,
      );
      await host.sh(`rm ${credential}; kms-agent keyslot add credential --system --passphrase-fd 0; cp -p ${credential} /root/credential`, {
        input: passphrase,
      });
      expect(await host.sh(stranger)).toBe('');
      await host.sh('systemctl start kms-agent.socket kms-agent.service');
      expect(await status()).toBe('UNLOCKED');
      expect(await host.sh('kms key list --json')).toBe(keys);
    });
  });

  test('doctor: a changed unit, a service that failed, and the socket of the system', async () => {
    const examine = async (flag: string): Promise<string> => (await host.run(['kms-agent', 'doctor', ...(flag ? [flag] : [])])).stdout;
    await host.sh('systemctl start kms-agent.service');
    expect(await examine('--system')).not.toMatch(/^WRONG {2}(unit|state|credential|socket)/m);
    expect(await examine('')).not.toMatch(/^WRONG {2}socket/m);
    expect(await examine('--system')).toMatch(/^ok {5}clock: the agent believes it$/m);
    const synchronized = await host.sh('timedatectl show --property=NTPSynchronized --value');
    expect(await examine('--system')).toMatch(
      synchronized === 'yes' ? /^ok {5}system clock: is sync/m : /^WRONG {2}system clock: it is not sync.*To mend it: /m,
    );
    const unit = '/etc/systemd/system/kms-agent.service';
    await host.sh(`cp -p ${unit} /root/unit; sed -i s/NoNewPrivileges=yes/NoNewPrivileges=no/ ${unit}`);
    expect(await examine('--system')).toMatch(/^WRONG {2}unit .*kms-agent\.service is not the unit of this version/m);
    await host.sh(`cp -p /root/unit ${unit}; systemctl daemon-reload; systemctl stop kms-agent.socket kms-agent.service; echo x > ${credential}`);
    expect((await host.run(['systemctl', 'start', 'kms-agent.service'])).code).not.toBe(0);
    expect(await examine('--system')).toMatch(/^WRONG {2}state of kms-agent\.service: failed.*243.*move .*kms-agent-root away/m);
    await recover();
    expect(await examine('--system')).not.toMatch(/^WRONG {2}(unit|state|credential)/m);
  });

  test('uninstall --system: the vault, the record and the settings stay, and open again after a new install', async () => {
    const removed = JSON.parse(await host.sh('kms-agent uninstall --system --json')) as { kept: string[] };
    expect(removed.kept).toEqual(['/var/lib/kms-agent', '/var/log/kms-agent', '/etc/kms-agent/config.json', credential]);
    expect(
      await host.sh(
        'ls -d /usr/lib/kms-agent /usr/bin/kms /usr/bin/kms-agent /usr/share/man/man1/kms* /usr/share/bash-completion/completions/kms* /usr/share/zsh/*/_kms* /usr/share/fish/*/kms* /etc/systemd/system/kms-agent.* /etc/sysusers.d/kms-agent.conf 2>/dev/null || true',
      ),
    ).toBe('');
    expect(await host.sh('systemctl list-units --all --no-legend "kms-agent*"')).toBe('');
    const again = await install();
    expect(outcomes(again)).toMatchObject({ program: 'done', vault: 'already', credential: 'already', settings: 'already', units: 'done' });
    expect(await status()).toBe('UNLOCKED');
  });
});
