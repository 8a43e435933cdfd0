import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

/** Receives datagrams and prints each with the pid of its sender; Node has no such socket. */
const program = `
import json, socket, struct, sys
name = sys.argv[1]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
listener.bind("\\0" + name[1:] if name.startswith("@") else name)
print(json.dumps({"pid": 0, "text": ""}), flush=True)
while True:
    data, controls, _, _ = listener.recvmsg(65536, socket.CMSG_SPACE(12))
    pid = struct.unpack("3i", controls[0][2])[0]
    print(json.dumps({"pid": pid, "text": data.decode()}), flush=True)
`;

/** A message to the service manager. */
export interface Notice {
  readonly pid: number;
  readonly text: string;
}

/** The part of a service manager that hears sd_notify. */
export class NotifySocket implements AsyncDisposable {
  readonly name: string;
  readonly notices: Notice[] = [];
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, name: string) {
    this.#child = child;
    this.name = name;
  }

  /** @param name - of the socket; abstract with an @. */
  static async open(name: string): Promise<NotifySocket> {
    const child = spawn('python3', ['-u', '-c', program, name], { stdio: ['ignore', 'pipe', 'inherit'] });
    const socket = new NotifySocket(child, name);
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => socket.notices.push(JSON.parse(line) as Notice)); // printed by the program above
    await once(lines, 'line');
    socket.notices.length = 0;
    return socket;
  }

  /** All that was said so far, a line each. */
  get said(): string[] {
    return this.notices.flatMap(({ text }) => text.split('\n'));
  }

  /** Waits for a line. @throws Error after 20 seconds. */
  async wait(pattern: RegExp): Promise<string> {
    for (let tries = 0; tries < 400; tries += 1) {
      const found = this.said.find((line) => pattern.test(line));
      if (found !== undefined) return found;
      await delay(50);
    }
    throw new Error(`nobody said ${pattern}: ${this.said.join(' | ')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill();
    await once(this.#child, 'exit');
  }
}
