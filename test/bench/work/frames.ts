import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectSocket, type Socket } from 'node:net';
import { type AgentClient, connect } from '@kms-agent/client';
import { checkCiphertext, checkSignature } from './agent.ts';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

type Spec = Extract<WorkSpec, { kind: 'frames' }>;

const beforeId = '{"jsonrpc":"2.0","id":';
const [zero, comma, lineFeed] = [0x30, 0x2c, 0x0a];
const resultMark = Buffer.from(',"result":');

/** A bare socket to an agent that is asked one thing again and again. A frame is made once for each of those that are under way at a time, and its id names who waits. */
class FrameSocket {
  readonly #socket: Socket;
  readonly #request: string;
  readonly #frames: Buffer[] = [];
  readonly #waiting: (((answer: Buffer) => void) | undefined)[] = [];
  readonly #free: number[] = [];
  #outgoing: Buffer[] = [];
  #rest: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket, request: string) {
    this.#socket = socket;
    this.#request = request;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', (error) => {
      throw error;
    });
  }

  /** @param request - a frame after its id. */
  static async open(path: string, request: string): Promise<FrameSocket> {
    const socket = connectSocket(path);
    await once(socket, 'connect');
    return new FrameSocket(socket, request);
  }

  /** What is asked in one turn of the event loop leaves in one write. @returns the result after its id; an error ends the process. */
  ask(): Promise<Buffer> {
    const id = this.#free.pop() ?? this.#frames.push(Buffer.from(`${beforeId}${this.#frames.length}${this.#request}`)) - 1;
    if (this.#outgoing.push(this.#frames[id] ?? Buffer.alloc(0)) === 1) process.nextTick(() => this.#flush());
    return new Promise((resolve) => {
      this.#waiting[id] = resolve;
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #flush(): void {
    this.#socket.write(Buffer.concat(this.#outgoing));
    this.#outgoing = [];
  }

  #take(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(lineFeed); end !== -1; end = bytes.indexOf(lineFeed, start)) {
      this.#answer(bytes, start + beforeId.length, end);
      start = end + 1;
    }
    this.#rest = bytes.subarray(start);
  }

  #answer(bytes: Buffer, start: number, end: number): void {
    let [at, id] = [start, 0];
    for (; bytes[at] !== comma; at += 1) id = id * 10 + (bytes[at] ?? zero) - zero;
    const resolve = this.#waiting[id];
    if (!resolve) throw new Error(bytes.toString('latin1', start - beforeId.length, end)); // about the stream itself, or an answer too many
    if (bytes.compare(resultMark, 0, resultMark.length, at, at + resultMark.length) !== 0) throw new Error(bytes.toString('latin1', at, end));
    this.#waiting[id] = undefined;
    this.#free.push(id);
    resolve(bytes.subarray(at, end));
  }
}

/** kms-agent by frames that are made once, as other agents are asked here: what it costs without the part of a client library. */
export async function openFrames({ socketPath, operation, keyId, bytes }: Spec): Promise<Session> {
  const message = randomBytes(bytes);
  const params = { keyId, [operation === 'sign' ? 'message' : 'plaintext']: message.toString('base64') };
  const request = `,${JSON.stringify({ method: operation, params }).slice(1)}\n`;
  const socket = await FrameSocket.open(socketPath, request);
  const kms = await connect({ socketPath, retry: false }); // for what is checked
  const check = operation === 'sign' ? checkSigned : checkSealed;
  const checked = async (): Promise<void> => {
    const { result } = JSON.parse(`{${(await socket.ask()).toString().slice(1)}`) as { result: Record<string, string> };
    await check(kms, keyId, message, result);
  };
  return {
    call: (isSample) => (isSample ? checked() : socket.ask()),
    close: () => {
      socket.close();
      kms.close();
    },
  };
}

type Check = (kms: AgentClient, keyId: string, message: Buffer, result: Record<string, string>) => Promise<void>;

const bytesOf = (text: string | undefined): Buffer => {
  if (text === undefined) throw new WrongAnswer('kms-agent');
  return Buffer.from(text, 'base64');
};

const checkSigned: Check = async (kms, keyId, message, { signature, algorithm = '' }) =>
  await checkSignature(kms, { keyId, message, algorithm, signature: bytesOf(signature) });

const checkSealed: Check = async (kms, _keyId, message, { ciphertextBlob }) => await checkCiphertext(kms, message, bytesOf(ciphertextBlob));
