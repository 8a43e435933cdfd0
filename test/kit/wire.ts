import { connect, type Socket } from 'node:net';

/** A response as it comes over the wire. */
export interface WireResponse {
  readonly jsonrpc: string;
  readonly id: unknown;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly code: number; readonly message: string; readonly data: Record<string, unknown> };
}

/** A bare connection: bytes out, lines in. */
export class Wire implements Disposable {
  readonly socket: Socket;
  #buffer = '';
  readonly #lines: string[] = [];
  readonly #waiting: ((line: string | undefined) => void)[] = [];
  closed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk.toString('latin1')));
    socket.on('error', () => undefined); // a reset shows as the close that follows
    socket.on('end', () => socket.end());
    socket.on('close', () => {
      this.closed = true;
      for (const resolve of this.#waiting.splice(0)) resolve(undefined);
    });
  }

  static open(path: string): Promise<Wire> {
    const { promise, resolve, reject } = Promise.withResolvers<Wire>();
    const socket = connect({ path, allowHalfOpen: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(new Wire(socket));
    });
    return promise;
  }

  send(text: string | Uint8Array): void {
    this.socket.write(text);
  }

  /** The next line; undefined when the peer has closed. */
  async line(): Promise<string | undefined> {
    const ready = this.#lines.shift();
    if (ready !== undefined || this.closed) return ready;
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** The next answer, or batch of answers, as JSON. */
  async answer<T = WireResponse>(): Promise<T> {
    const line = await this.line();
    if (line === undefined) throw new Error('the agent closed the connection');
    return JSON.parse(line) as T;
  }

  async ask(text: string): Promise<WireResponse> {
    this.send(`${text}\n`);
    return await this.answer();
  }

  async call(method: string, params: Record<string, unknown> = {}): Promise<WireResponse> {
    return await this.ask(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }));
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }

  #take(text: string): void {
    const parts = (this.#buffer + text).split('\n');
    this.#buffer = parts.pop() ?? '';
    for (const line of parts) {
      const waiting = this.#waiting.shift();
      if (waiting) waiting(line);
      else this.#lines.push(line);
    }
  }
}
