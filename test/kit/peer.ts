import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { cleanEnv } from './agent.ts';

/** Whether tests may become other users. */
export const asRoot = process.getuid?.() === 0 && existsSync('/usr/bin/setpriv');

/** Where the version 2 cgroups of this machine are; undefined without, or where they cannot be made. */
export const cgroupRoot: string | undefined = findCgroupRoot();

function findCgroupRoot(): string | undefined {
  const line = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((mount) => mount.includes(' - cgroup2 '));
  const path = line?.split(' ')[4];
  if (!asRoot || path === undefined) return undefined;
  try {
    mkdirSync(join(path, 'kms-agent-probe'));
    rmdirSync(join(path, 'kms-agent-probe'));
    return path;
  } catch {
    return undefined;
  }
}

/** Who a peer is. */
export interface PeerOptions {
  readonly uid?: number;
  /** Supplementary groups. */
  readonly groups?: readonly number[];
  /** Its place below the root of the cgroups, for example `system.slice/nginx.service`. */
  readonly cgroup?: string;
  /** A command that runs the program. */
  readonly before?: readonly string[];
  /** The perl that runs it. */
  readonly perl?: string;
  /** What perl runs; default: lines from its input go to the socket, answers come back. */
  readonly script?: string;
  readonly args?: readonly string[];
}

/** An answer, as far as tests look at it. */
export interface PeerAnswer {
  readonly id: unknown;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string; readonly data: { readonly code: string; readonly [field: string]: unknown } };
}

/** Passes lines on, and takes commands: `exec` becomes another program, `orphan` leaves the socket to a grandchild. */
const defaultScript = `
use Socket; use IO::Handle; $^F = 255; STDOUT->autoflush(1);
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die $!; connect($s, pack_sockaddr_un($ARGV[0])) or die "connect: $!";
$s->autoflush(1);
sub take { my $line = ''; while (sysread(STDIN, my $byte, 1)) { $line .= $byte; last if $byte eq "\\n"; } return $line; } # what was read ahead would be lost to the next program
print "connected $$\\n";
while (my $line = take()) {
  if ($line =~ /^exec/) { my $fd = fileno($s); exec('/bin/sh', '-c', "while read -r line; do printf '%s\\\\n' \\"\\$line\\" >&$fd; IFS= read -r answer <&$fd; printf '%s\\\\n' \\"\\$answer\\"; done"); }
  if ($line =~ /^orphan/) { my $pid = fork(); if ($pid) { print "orphaned $pid\\n"; require POSIX; POSIX::_exit(0); } sleep 1; next; }
  print $s $line; my $answer = <$s>; print $answer;
}
`;

/** A process of somebody's, connected to an agent. */
export class TestPeer implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #cgroup: string | undefined;
  #next = 0;
  pid = 0;

  private constructor(child: ChildProcess, cgroup: string | undefined) {
    this.child = child;
    this.#cgroup = cgroup;
    if (!child.stdout) throw new TypeError('the peer has no output');
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /** Starts it and waits until it is connected. */
  static async start(
    socketPath: string,
    { uid = 0, groups = [], cgroup, before = [], perl = '/usr/bin/perl', script = defaultScript, args = [] }: PeerOptions = {},
  ): Promise<TestPeer> {
    const folder = cgroup === undefined || cgroupRoot === undefined ? undefined : join(cgroupRoot, cgroup);
    if (folder) mkdirSync(folder, { recursive: true });
    const enter = folder ? ['sh', '-c', `echo $$ > ${folder}/cgroup.procs && exec "$@"`, 'sh'] : [];
    const groupsFlag = groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups';
    const become = uid === 0 && groups.length === 0 ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, groupsFlag];
    const [program = '', ...rest] = [...enter, ...before, ...become, perl, '-e', script, socketPath, ...args];
    const child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'], env: cleanEnv(), cwd: '/' });
    child.stdin.on('error', () => undefined); // it may end before it has read
    const peer = new TestPeer(child, folder);
    peer.pid = Number((await peer.line()).split(' ')[1]);
    return peer;
  }

  /** Its next line of output. */
  async line(): Promise<string> {
    const { done, value } = await this.#lines.next();
    if (done) throw new Error('the peer has ended');
    return value;
  }

  say(text: string): void {
    this.child.stdin?.write(`${text}\n`);
  }

  /** Sends one request and waits for its answer. */
  async ask(method: string, params: Record<string, unknown> = {}): Promise<PeerAnswer> {
    this.#next += 1;
    this.say(JSON.stringify({ jsonrpc: '2.0', id: this.#next, method, params }));
    return JSON.parse(await this.line()) as PeerAnswer;
  }

  /** The code of the error that a request is answered, `ok` for none. */
  async outcome(method: string, params: Record<string, unknown> = {}): Promise<string> {
    return (await this.ask(method, params)).error?.data.code ?? 'ok';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.stdin?.end();
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.child.on('exit', () => resolve());
      this.child.kill('SIGKILL');
      await promise;
    }
    if (this.#cgroup) await removeCgroup(this.#cgroup);
  }
}

/** A cgroup can be removed when the kernel has seen its last process go. */
async function removeCgroup(folder: string): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    try {
      return rmdirSync(folder);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
