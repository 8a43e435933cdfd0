import { Readable } from 'node:stream';
import { AgentError } from '@kms-agent/protocol';

/** Where bytes come from: a Node stream, a web ReadableStream, or any other asynchronous series of pieces. */
export type ByteSource = AsyncIterable<Uint8Array>;

/** Headers are some hundred bytes; this bounds what a file that is none can make us hold. */
const maxHeaderBytes = 65_536;
const firstLine = Buffer.from('age-encryption.org/v1\n');
const lastLine = Buffer.from('\n--- ');

/** A series of bytes that is read in portions. Ends its source when it is disposed of. */
export class SourceReader implements AsyncDisposable {
  readonly #source: ByteSource;
  readonly #pieces: AsyncIterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array(0);

  constructor(source: ByteSource) {
    this.#source = source;
    this.#pieces = source[Symbol.asyncIterator]();
  }

  /** The first lines, up to the one that begins with `---`. @throws AgentError `ERR_INVALID_CIPHERTEXT` when there is no such thing. */
  async readHeader(): Promise<Uint8Array> {
    let text = Buffer.alloc(0);
    for (;;) {
      const piece = await this.#next();
      if (!piece) throw new AgentError('ERR_INVALID_CIPHERTEXT', { hint: 'The file ends within its header.' });
      text = Buffer.concat([text, piece]);
      const known = Math.min(text.length, firstLine.length);
      if (!text.subarray(0, known).equals(firstLine.subarray(0, known)) || text.length > maxHeaderBytes + piece.length)
        throw new AgentError('ERR_INVALID_CIPHERTEXT', { hint: 'This is not a file of age, or its header is too long.' });
      const mac = text.indexOf(lastLine);
      const end = mac === -1 ? -1 : text.indexOf('\n', mac + 1);
      if (end === -1) continue;
      this.#held = text.subarray(end + 1);
      return text.subarray(0, end + 1);
    }
  }

  /** Fills `target` as far as the source goes. @returns the number of bytes. */
  async fill(target: Uint8Array): Promise<number> {
    let length = 0;
    while (length < target.length) {
      if (this.#held.length === 0) {
        const piece = await this.#next();
        if (!piece) break;
        this.#held = piece;
      }
      const taken = this.#held.subarray(0, target.length - length);
      target.set(taken, length);
      length += taken.length;
      this.#held = this.#held.subarray(taken.length);
    }
    return length;
  }

  async #next(): Promise<Uint8Array | undefined> {
    const { value, done } = await this.#pieces.next();
    if (done) return undefined;
    if (!(value instanceof Uint8Array)) throw new TypeError('the source gives something else than bytes');
    return value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pieces.return?.();
    if (this.#source instanceof Readable) this.#source.destroy(); // its iterator leaves a file open that was never read from
  }
}
