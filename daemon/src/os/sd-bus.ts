import koffi from 'koffi';
import { duplicateFd, libc } from './libc.ts';

/*
 * The system bus by way of libsystemd (sd-bus(3)), which every host with systemd has. Every call here blocks: it is for a process of its own.
 */

/** The name, and the path, of the bus itself. */
const busName = 'org.freedesktop.DBus';
const busPath = '/org/freedesktop/DBus';
/** Microseconds that a service on the bus has for its answer. */
const callTimeoutUsec = 5_000_000;
/** <errno.h>: what sd-bus makes of a name that nobody has, and of an object that is not there. */
const eNoSuchName = 6;
const eNoSuchObject = 53;
/** <poll.h> */
const pollIn = 1;

type Pointer = unknown;

/** Loads the library. @throws Error where there is none. */
function bind() {
  const library = koffi.load('libsystemd.so.0');
  return {
    open: library.func('int sd_bus_open_system(_Out_ void **bus)'),
    setTimeout: library.func('int sd_bus_set_method_call_timeout(void *bus, uint64_t usec)'),
    call: library.func(
      'int sd_bus_call_method(void *bus, const char *service, const char *path, const char *interface, const char *member, void *error, _Out_ void **reply, const char *types, ...)',
    ),
    property: library.func(
      'int sd_bus_get_property(void *bus, const char *service, const char *path, const char *interface, const char *member, void *error, _Out_ void **reply, const char *type)',
    ),
    enter: library.func('int sd_bus_message_enter_container(void *message, char type, const char *contents)'),
    leave: library.func('int sd_bus_message_exit_container(void *message)'),
    readText: library.func('int sd_bus_message_read_basic(void *message, char type, _Out_ const char **value)'),
    readInt: library.func('int sd_bus_message_read_basic(void *message, char type, _Out_ int *value)'),
    readUint64: library.func('int sd_bus_message_read_basic(void *message, char type, _Out_ uint64_t *value)'),
    process: library.func('int sd_bus_process(void *bus, _Out_ void **message)'),
    interfaceOf: library.func('const char *sd_bus_message_get_interface(void *message)'),
    memberOf: library.func('const char *sd_bus_message_get_member(void *message)'),
    pathOf: library.func('const char *sd_bus_message_get_path(void *message)'),
    senderOf: library.func('const char *sd_bus_message_get_sender(void *message)'),
    unref: library.func('void *sd_bus_message_unref(void *message)'),
    fd: library.func('int sd_bus_get_fd(void *bus)'),
  };
}

const poll = libc.func('int poll(uint8_t *fds, unsigned long count, int timeout)');

/** A call on the bus that failed; `errno` as sd-bus says it. */
export class BusError extends Error {
  readonly errno: number;

  constructor(what: string, errno: number) {
    super(`${what} failed with errno ${errno}`);
    this.errno = errno;
  }

  /** What was asked for is not there. */
  get isOfUnknown(): boolean {
    return this.errno === eNoSuchName || this.errno === eNoSuchObject;
  }
}

function check(result: number, what: string): number {
  if (result < 0) throw new BusError(what, -result);
  return result;
}

const charOf = (type: string): number => type.charCodeAt(0);

/** A message, for as long as its reader runs. */
export class Message {
  readonly #lib: ReturnType<typeof bind>;
  readonly #pointer: Pointer;

  constructor(lib: ReturnType<typeof bind>, pointer: Pointer) {
    this.#lib = lib;
    this.#pointer = pointer;
  }

  /** `interface.member` of a signal. */
  get name(): string {
    return `${this.#lib.interfaceOf(this.#pointer)}.${this.#lib.memberOf(this.#pointer)}`;
  }

  get path(): string {
    return String(this.#lib.pathOf(this.#pointer));
  }

  /** The unique name of who sent it: the bus vouches for it. */
  get sender(): string {
    return String(this.#lib.senderOf(this.#pointer));
  }

  /** The next value, a string or an object path. */
  text(type: 's' | 'o' = 's'): string {
    const value: (string | null)[] = [null];
    check(this.#lib.readText(this.#pointer, charOf(type), value), 'sd_bus_message_read_basic');
    return value[0] ?? '';
  }

  boolean(): boolean {
    return this.#int('b') !== 0;
  }

  uint32(): number {
    return this.#int('u') >>> 0;
  }

  uint64(): number {
    const value = [0];
    check(this.#lib.readUint64(this.#pointer, charOf('t'), value), 'sd_bus_message_read_basic');
    return Number(value[0]);
  }

  /** A descriptor of the reader's own. */
  descriptor(): number {
    return duplicateFd(this.#int('h')); // the message closes the one that came
  }

  /** Reads inside of a struct. */
  struct<T>(contents: string, read: () => T): T {
    check(this.#lib.enter(this.#pointer, charOf('r'), contents), 'sd_bus_message_enter_container');
    const value = read();
    check(this.#lib.leave(this.#pointer), 'sd_bus_message_exit_container');
    return value;
  }

  /** Reads every struct of an array. */
  structs<T>(contents: string, read: () => T): T[] {
    const values: T[] = [];
    check(this.#lib.enter(this.#pointer, charOf('a'), `(${contents})`), 'sd_bus_message_enter_container');
    while (check(this.#lib.enter(this.#pointer, charOf('r'), contents), 'sd_bus_message_enter_container') > 0) {
      values.push(read());
      check(this.#lib.leave(this.#pointer), 'sd_bus_message_exit_container');
    }
    return values;
  }

  #int(type: string): number {
    const value = [0];
    check(this.#lib.readInt(this.#pointer, charOf(type), value), 'sd_bus_message_read_basic');
    return value[0] ?? 0;
  }
}

/** A connection to the system bus. */
export class SystemBus {
  readonly #lib = bind();
  readonly #bus: Pointer;

  /** Connects: DBUS_SYSTEM_BUS_ADDRESS, or the usual place. @throws BusError; Error without libsystemd. */
  constructor() {
    const bus: Pointer[] = [null];
    check(this.#lib.open(bus), 'sd_bus_open_system');
    this.#bus = bus[0];
    check(this.#lib.setTimeout(this.#bus, callTimeoutUsec), 'sd_bus_set_method_call_timeout');
  }

  /** Asks the bus for signals. */
  subscribe(rule: string): void {
    this.call(busName, busPath, busName, 'AddMatch', [rule], () => undefined);
  }

  /** The unique name behind a well-known one; undefined while nobody has it. */
  ownerOf(name: string): string | undefined {
    try {
      return this.call(busName, busPath, busName, 'GetNameOwner', [name], (reply) => reply.text());
    } catch (error) {
      if (error instanceof BusError && error.isOfUnknown) return undefined;
      throw error;
    }
  }

  /** Calls a method whose arguments are strings. @throws BusError */
  call<T>(service: string, path: string, interfaceName: string, member: string, args: readonly string[], read: (reply: Message) => T): T {
    const reply: Pointer[] = [null];
    const values = args.flatMap((arg) => ['str', arg]);
    check(this.#lib.call(this.#bus, service, path, interfaceName, member, null, reply, 's'.repeat(args.length), ...values), member);
    return this.#read(reply[0], read);
  }

  /** Reads a property. @throws BusError */
  property<T>(service: string, path: string, interfaceName: string, member: string, type: string, read: (value: Message) => T): T {
    const reply: Pointer[] = [null];
    check(this.#lib.property(this.#bus, service, path, interfaceName, member, null, reply, type), member);
    return this.#read(reply[0], read);
  }

  /** Hands over every signal that has come. @throws BusError when the connection has ended. */
  drain(take: (signal: Message) => void): void {
    for (;;) {
      const message: Pointer[] = [null];
      if (check(this.#lib.process(this.#bus, message), 'sd_bus_process') === 0) return;
      if (message[0]) this.#read(message[0], take);
    }
  }

  /** Waits until the bus or `fd` has something to read. @returns whether `fd` has. */
  waitWith(fd: number): boolean {
    const fds = Buffer.alloc(16);
    for (const [index, watched] of [check(this.#lib.fd(this.#bus), 'sd_bus_get_fd'), fd].entries()) {
      fds.writeInt32LE(watched, index * 8);
      fds.writeInt16LE(pollIn, index * 8 + 4);
    }
    poll(fds, 2, -1);
    return fds.readInt16LE(14) !== 0;
  }

  #read<T>(pointer: Pointer, read: (message: Message) => T): T {
    try {
      return read(new Message(this.#lib, pointer));
    } finally {
      this.#lib.unref(pointer);
    }
  }
}
