// Runs in the sandbox of the unit, in the agent's place, and prints what it can do.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';

const attempt = (work) => {
  try {
    work();
    return 'done';
  } catch (error) {
    return error.code ?? String(error);
  }
};
const write = (path) => attempt(() => writeFileSync(path, 'x'));
const list = (path) => attempt(() => readdirSync(path));
const reach = (options) =>
  new Promise((resolve) => {
    const socket = connect(options, () => resolve('done'));
    socket.on('error', (error) => resolve(error.code));
    // Packets are dropped: the socket itself was allowed.
    socket.setTimeout(5000, () => {
      resolve('no answer');
      socket.destroy();
    });
  });
const status = readFileSync('/proc/self/status', 'utf8');
const field = (name) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1];
const found = {
  writes: Object.fromEntries(
    ['/etc/x', '/usr/x', '/var/lib/x', '/run/x', '/run/kms-agent/x', '/var/lib/kms-agent/probe', '/var/log/kms-agent/probe', '/tmp/x'].map((path) => [
      path,
      write(path),
    ]),
  ),
  lists: Object.fromEntries(['/home', '/root'].map((path) => [path, list(path)])),
  // What callers wrote in their homes must not be readable through another name either.
  marker: existsSync('/home/alice/marker') || existsSync('/tmp/marker'),
  inet: await reach({ host: '127.0.0.1', port: 9 }),
  unix: await reach({ path: '/run/systemd/notify-is-not-here' }),
  interfaces: readdirSync('/sys/class/net'), // Node would ask by netlink, which is closed as well
  namespaces: spawnSync('unshare', ['--user', 'true'], { encoding: 'utf8' }).stderr.trim() || 'done',
  callers: existsSync('/proc/1/cgroup'),
  noNewPrivileges: field('NoNewPrivs'),
  seccomp: field('Seccomp'),
  capabilities: [field('CapEff'), field('CapBnd')],
  credentials: list(process.env.CREDENTIALS_DIRECTORY ?? '/nowhere'),
  variables: ['NODE_OPTIONS', 'LD_PRELOAD'].filter((name) => name in process.env),
};
console.log(JSON.stringify(found));
