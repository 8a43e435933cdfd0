import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectSocket, type Socket } from 'node:net';
import { type AgentClient, connect } from '@kms-agent/client';
import { checkCiphertext, checkSignature } from './agent.ts';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

type Spec = Extract<WorkSpec, { kind: 'frames' }>;

const beforeId = '{"jsonrpc":"2.0","id":';

/** A bare socket to an agent: what is asked in one turn of the event loop leaves in one write, and an answer goes to who asked by its id. */
class FrameSocket {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (answer: string) => void>();
  #nextId = 1;
  #outgoing = '';
  #rest = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => this.#take(chunk));
    socket.on('error', (error) => {
      throw error;
    });
  }

  static async open(path: string): Promise<FrameSocket> {
    const socket = connectSocket(path);
    await once(socket, 'connect');
    return new FrameSocket(socket);
  }

  /** @param request - a frame after its id. @returns the answer after its id. */
  ask(request: string): Promise<string> {
    if (this.#outgoing === '') process.nextTick(() => this.#flush());
    const id = this.#nextId++;
    this.#outgoing += `${beforeId}${id}${request}`;
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }

  close(): void {
    this.#socket.destroy();
  }

  #flush(): void {
    this.#socket.write(this.#outgoing, 'latin1');
    this.#outgoing = '';
  }

  #take(chunk: string): void {
    const text = this.#rest + chunk;
    let start = 0;
    for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n', start)) {
      this.#answer(text, start, end);
      start = end + 1;
    }
    this.#rest = text.slice(start);
  }

  #answer(text: string, start: number, end: number): void {
    const comma = text.indexOf(',', start + beforeId.length);
    const id = Number(text.slice(start + beforeId.length, comma));
    this.#waiting.get(id)?.(text.slice(comma, end));
    this.#waiting.delete(id);
  }
}

/** kms-agent by frames whose text is made once, as other agents are asked here: what it costs without the part of a client library. */
export async function openFrames({ socketPath, operation, keyId, bytes }: Spec): Promise<Session> {
  const message = randomBytes(bytes);
  const params = { keyId, [operation === 'sign' ? 'message' : 'plaintext']: message.toString('base64') };
  const request = `,${JSON.stringify({ method: operation, params }).slice(1)}\n`;
  const socket = await FrameSocket.open(socketPath);
  const kms = await connect({ socketPath, retry: false }); // for what is checked
  const check = operation === 'sign' ? checkSigned : checkSealed;
  return {
    call: async (isSample) => {
      const answer = await socket.ask(request);
      if (!answer.startsWith(',"result":')) throw new Error(answer);
      if (isSample) await check(kms, keyId, message, (JSON.parse(`{${answer.slice(1)}`) as { result: Record<string, string> }).result);
    },
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
