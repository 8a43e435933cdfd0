import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { agentProgram, cleanEnv } from './agent.ts';

const python = '/usr/bin/python3';
/** An ordinary user that nothing on the machine belongs to. */
export const otherUid = 4242;

/** What runs a command as an ordinary user: nothing for one who is one. */
export const asUser: readonly string[] =
  process.getuid?.() === 0 ? ['setpriv', `--reuid=${otherUid}`, `--regid=${otherUid}`, '--clear-groups', '--bounding-set=-all', '--inh-caps=-all'] : [];

/** Whether an ordinary user can run the agent: not from a checkout in a folder that is closed to others. */
export const canRunAsUser = canRun('test', '-r', agentProgram) && canRun(process.execPath, '--version');

function canRun(...command: string[]): boolean {
  const [program = '', ...args] = [...asUser, ...command];
  return spawnSync(program, args, { cwd: '/', stdio: 'ignore' }).status === 0;
}

/** Ways into another process: ptrace(2), process_vm_readv(2), and the files of proc(5) that show memory, environment and descriptors. */
const script = `
import ctypes, errno, json, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
def outcome(work):
    try:
        return 'open' if work() else errno.errorcode[ctypes.get_errno()]
    except OSError as error:
        return errno.errorcode[error.errno]
def maps(pid):
    with open(f'/proc/{pid}/maps') as file:
        return int(file.readline().split('-')[0], 16)
def read(path):
    with open(path, 'rb', 0) as file:
        return True
def attach(pid):
    if libc.ptrace(16, pid, None, None) != 0: return False
    os.waitpid(pid, 0x40000000)
    return libc.ptrace(17, pid, None, None) == 0
def copy(pid, address):
    here = ctypes.create_string_buffer(4)
    return libc.process_vm_readv(pid, ctypes.byref(Part(ctypes.addressof(here), 4)), 1, ctypes.byref(Part(address, 4)), 1, 0) == 4
found = {}
control = subprocess.Popen(['sleep', '60'])
for pid in [control.pid, *map(int, sys.argv[1:])]:
    try: address = maps(pid)
    except OSError: address = 0x400000
    found['control' if pid == control.pid else pid] = {
        'ptrace': outcome(lambda: attach(pid)),
        'process_vm_readv': outcome(lambda: copy(pid, address)),
        'mem': outcome(lambda: read(f'/proc/{pid}/mem')),
        'maps': outcome(lambda: maps(pid) > 0),
        'environ': outcome(lambda: read(f'/proc/{pid}/environ')),
        'fd': outcome(lambda: len(os.listdir(f'/proc/{pid}/fd')) > 0),
    }
control.kill()
print(json.dumps(found))
`;

/** What came of each way into each process: `open`, or the name of an errno. */
export type Attacks = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** Tries every way into processes, as an ordinary user; into `control` as well, a child of the attacker's that protects itself from nobody. */
export function attack(...pids: number[]): Attacks {
  const [program = '', ...args] = [...asUser, python, '-c', script, ...pids.map(String)];
  const { stdout, stderr, status } = spawnSync(program, args, { cwd: '/', encoding: 'utf8', env: cleanEnv() });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Attacks; // printed above
}

/** Runs a command that may write cores, sends it a signal once it has printed a line, and says how it ended. */
const coreScript = `
import json, os, resource, signal, subprocess, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
os.kill(child.pid, getattr(signal, sys.argv[1]))
_, status = os.waitpid(child.pid, 0)
print(json.dumps({'signal': signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None, 'core': os.WCOREDUMP(status)}), flush=True)
os._exit(0)
`;

/** How a process ended, and whether the kernel wrote a core of it (wait(2), WCOREDUMP). */
export interface Crash {
  readonly signal: string | null;
  readonly core: boolean;
}

/** @param cwd - where a core would be. */
export function crash(signal: NodeJS.Signals, cwd: string, command: readonly string[]): Promise<Crash> {
  const { promise, resolve, reject } = Promise.withResolvers<Crash>();
  const child = spawn(python, ['-c', coreScript, signal, ...command], { cwd, stdio: ['ignore', 'pipe', 'inherit'], env: cleanEnv() });
  let printed = '';
  child.stdout.on('data', (chunk: Buffer) => {
    printed += chunk.toString();
  });
  child.on('close', (code) => (code === 0 && printed !== '' ? resolve(JSON.parse(printed) as Crash) : reject(new Error(`python ended with ${code}`)))); // printed above
  return promise;
}

/** Opens the memory of every process that comes, again and again, and keeps what it got; told a pid, says whether one of those still reads. */
const watchScript = `
import json, os, select, sys
program, held = sys.argv[1].encode(), {}
print('ready', flush=True)
while True:
    for name in os.listdir('/proc'):
        if not name.isdigit() or int(name) == os.getpid(): continue
        try:
            with open(f'/proc/{name}/cmdline', 'rb') as file:
                if program not in file.read(4096): continue
            memory, maps = os.open(f'/proc/{name}/mem', os.O_RDONLY), os.open(f'/proc/{name}/maps', os.O_RDONLY)
        except OSError: continue
        held.setdefault(name, []).append((memory, maps))
        if len(held[name]) > 100:
            for file in held[name].pop(0): os.close(file)
    if select.select([sys.stdin], [], [], 0)[0]: break
def reads(memory, maps):
    try:
        address = int(os.read(maps, 4096).split(b'-')[0], 16)
        return os.pread(memory, 16, address) != b''
    except (OSError, ValueError): return False
print(json.dumps(any(reads(*pair) for pair in held.get(sys.stdin.readline().strip(), []))), flush=True)
`;

/** An attacker of the ordinary user that is there before its victim starts. */
export class StartWatcher implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /** @param program - what the command line of the victims has in it. */
  static async start(program: string): Promise<StartWatcher> {
    const watcher = new StartWatcher(spawn('/usr/bin/env', [...asUser, python, '-c', watchScript, program], { cwd: '/', env: cleanEnv() }));
    await watcher.#lines.next();
    return watcher;
  }

  /** Whether it holds the memory of a process open, and can read it. */
  async canRead(pid: number): Promise<boolean> {
    this.#child.stdin.write(`${pid}\n`);
    const { value } = (await this.#lines.next()) as { value: string };
    return JSON.parse(value) as boolean;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    if (this.#child.kill('SIGKILL')) await gone;
  }
}
