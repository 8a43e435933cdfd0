import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { libc } from './libc.ts';

const socket = libc.func('int socket(int domain, int type, int protocol)');
const sendto = libc.func('long sendto(int fd, uint8_t *message, size_t length, int flags, uint8_t *address, uint32_t addressLength)');
const getsockname = libc.func('int getsockname(int fd, _Out_ uint8_t *address, _Inout_ uint32_t *length)');

// <bits/socket.h>, <bits/socket_type.h>
const afUnix = 1;
const sockDatagram = 2;
const sockCloseOnExec = 0o2000000;
const dontWait = 0x40;
const noSignal = 0x4000;

/** Longest name of a Unix socket (unix(7), sun_path). */
const maxNameBytes = 108;

/** What a service manager gave to this process. */
export interface Supervision {
  /** Where it hears how the service is (sd_notify(3)). */
  readonly notifySocket?: string;
  /** Milliseconds without a sign of life after which it ends the service (sd_watchdog_enabled(3)). */
  readonly watchdogMs?: number;
  /** Sockets that it has opened, from descriptor 3 on (sd_listen_fds(3)); a name each where it gave some. */
  readonly sockets: { readonly count: number; readonly names?: readonly string[] };
}

const variables = ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES'];

/** Takes what is meant for this process out of the environment: a child must not speak for the service, nor take its sockets. */
export function takeSupervision(env: NodeJS.ProcessEnv): Supervision {
  const { NOTIFY_SOCKET: notifySocket, WATCHDOG_USEC: usec, WATCHDOG_PID: watched, LISTEN_FDS: count, LISTEN_PID: listener, LISTEN_FDNAMES: names } = env;
  for (const name of variables) delete env[name];
  const own = String(process.pid);
  const isWatched = Number(usec) > 0 && (watched === undefined || watched === own);
  return {
    ...(notifySocket ? { notifySocket } : {}),
    ...(isWatched ? { watchdogMs: Number(usec) / 1000 } : {}),
    sockets: listener === own ? { count: Number(count), ...(names === undefined ? {} : { names: names.split(':') }) } : { count: 0 },
  };
}

/** The path that a listening Unix socket is bound to; undefined for a socket of another kind, an abstract one, or none at all (unix(7)). */
export function socketPathOf(fd: number): string | undefined {
  const address = Buffer.alloc(2 + maxNameBytes);
  const length = [address.length];
  if (getsockname(fd, address, length) === -1 || address.readUInt16LE(0) !== afUnix) return undefined;
  const name = address.subarray(2, length[0]);
  return name[0] === 0x2f ? name.toString().replace(/\0.*$/s, '') : undefined;
}

/** A struct sockaddr_un. A name that begins with @ is an abstract one, without a NUL at its end (unix(7)). */
function encodeAddress(name: string): Buffer {
  const isAbstract = name.startsWith('@');
  const path = Buffer.from(isAbstract ? `\0${name.slice(1)}` : `${name}\0`);
  if (!/^[/@]./.test(name) || path.length > maxNameBytes) throw new Error('NOTIFY_SOCKET names no Unix socket');
  const family = Buffer.alloc(2);
  family.writeUInt16LE(afUnix);
  return Buffer.concat([family, path]);
}

/** Sends one datagram to a Unix socket, without waiting. @throws Error with the errno. */
export function sendDatagram(name: string, text: string): void {
  const address = encodeAddress(name);
  const fd = Number(socket(afUnix, sockDatagram | sockCloseOnExec, 0));
  if (fd === -1) throw new Error(`socket failed with errno ${koffi.errno()}`);
  try {
    const message = Buffer.from(text);
    const sent = Number(sendto(fd, message, message.length, dontWait | noSignal, address, address.length));
    if (sent !== message.length) throw new Error(`sendto failed with errno ${koffi.errno()}`);
  } finally {
    closeSync(fd);
  }
}

/** Tells a service manager how the service is (sd_notify(3)); without one nothing is sent. */
export class Notifier {
  readonly #supervision: Supervision;
  readonly #onError: (error: unknown) => void;
  #status = '';

  constructor(supervision: Supervision, onError: (error: unknown) => void) {
    this.#supervision = supervision;
    this.#onError = onError;
  }

  /** From now on the service answers, and shows that its loop runs at half of the time that the manager waits for it. */
  ready(): void {
    this.#send('READY=1');
    const { watchdogMs } = this.#supervision;
    if (watchdogMs !== undefined) setInterval(() => this.#send('WATCHDOG=1'), watchdogMs / 2).unref();
  }

  /** One line for a person; the same one is not sent again. */
  status(line: string): void {
    if (line === this.#status) return;
    this.#status = line;
    this.#send(`STATUS=${line}`);
  }

  stopping(): void {
    this.#send('STOPPING=1');
  }

  /** Settings are being read again, until the work ends. */
  async reloading(work: () => Promise<void>): Promise<void> {
    this.#send(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
    try {
      await work();
    } finally {
      this.#send('READY=1');
    }
  }

  #send(text: string): void {
    const { notifySocket } = this.#supervision;
    if (notifySocket === undefined) return;
    try {
      sendDatagram(notifySocket, text);
    } catch (error) {
      this.#onError(error); // the manager will act on the silence; the service goes on
    }
  }
}
