import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** A bare Unix socket whose answers come in the order of the requests. */
export class OrderedStream {
  readonly #socket: Socket;
  readonly #waiting: ((answer: Buffer) => void)[] = [];
  readonly #take: (bytes: Buffer) => number;
  #outgoing: Uint8Array[] = [];
  #rest: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket, take: (bytes: Buffer) => number) {
    this.#socket = socket;
    this.#take = take;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => {
      throw error;
    });
  }

  /** @param take - the length of the first whole answer in what has come; 0 when there is none yet. */
  static async open(path: string, take: (bytes: Buffer) => number): Promise<OrderedStream> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new OrderedStream(socket, take);
  }

  /** Waits for the next answer; with a request, sends that before. */
  ask(request?: Uint8Array | string): Promise<Buffer> {
    if (request !== undefined) this.#send(request);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  close(): void {
    this.#socket.destroy();
  }

  /** What is asked in one turn of the event loop leaves in one write. */
  #send(request: Uint8Array | string): void {
    if (this.#outgoing.push(typeof request === 'string' ? Buffer.from(request, 'latin1') : request) > 1) return;
    process.nextTick(() => {
      this.#socket.write(Buffer.concat(this.#outgoing));
      this.#outgoing = [];
    });
  }

  #receive(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (let length = this.#take(this.#rest); length > 0; length = this.#take(this.#rest)) {
      const answer = this.#rest.subarray(0, length);
      this.#rest = this.#rest.subarray(length);
      this.#waiting.shift()?.(answer);
    }
  }
}
