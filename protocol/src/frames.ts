import { Buffer } from 'node:buffer';
import { AgentError } from './errors.ts';

/** Longest frame in bytes before its LF, by default. */
export const defaultMaxFrameBytes = 1_048_576;

/** Deepest nesting of arrays and objects in a frame, by default: a MiB of brackets would block JSON.parse for tens of milliseconds. */
export const defaultMaxDepth = 32;

const lineFeed = 0x0a;

/**
 * Cuts a byte stream into frames: one JSON text a line, UTF-8, ended by LF. Empty lines are dropped.
 * Holds at most `maxFrameBytes` and works in linear time however the stream is cut.
 */
export class FrameReader {
  readonly #maxFrameBytes: number;
  #parts: Buffer[] = [];
  #length = 0;

  constructor({ maxFrameBytes = defaultMaxFrameBytes }: { maxFrameBytes?: number } = {}) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /**
   * Takes the next bytes of the stream.
   * @returns the frames that they complete, without their LF.
   * @throws AgentError `ERR_TOO_LARGE` as soon as a frame exceeds the limit; a FrameTooLargeError whose `complete` are the frames before it; the reader is of no more use then.
   */
  push(chunk: Buffer): Buffer[] {
    const frames: Buffer[] = [];
    let start = 0;
    for (let end = chunk.indexOf(lineFeed); end !== -1; end = chunk.indexOf(lineFeed, start)) {
      this.#add(chunk.subarray(start, end), frames);
      this.#take(frames);
      start = end + 1;
    }
    this.#add(chunk.subarray(start), frames);
    return frames;
  }

  /** Bytes of the unfinished frame that are held. */
  get pendingBytes(): number {
    return this.#length;
  }

  #add(part: Buffer, complete: readonly Buffer[]): void {
    if (part.length === 0) return;
    this.#length += part.length;
    if (this.#length > this.#maxFrameBytes) throw new FrameTooLargeError(complete);
    // Fed byte by byte, a list of parts would cost a hundred bytes each; joining at powers of two keeps it linear and small.
    this.#parts.push(part);
    let last = this.#parts.length - 1;
    while (last > 0 && (this.#parts[last - 1]?.length ?? 0) <= 2 * (this.#parts[last]?.length ?? 0)) {
      this.#parts.splice(last - 1, 2, Buffer.concat(this.#parts.slice(last - 1)));
      last -= 1;
    }
  }

  #take(frames: Buffer[]): void {
    if (this.#length === 0) return;
    const [only] = this.#parts;
    frames.push(this.#parts.length === 1 && only ? only : Buffer.concat(this.#parts));
    this.#parts = [];
    this.#length = 0;
  }
}

/** A frame exceeded the limit; `complete` are the frames of the same chunk before it. */
export class FrameTooLargeError extends AgentError {
  readonly complete: readonly Buffer[];

  constructor(complete: readonly Buffer[]) {
    super('ERR_TOO_LARGE');
    this.complete = complete;
  }
}

const quote = 0x22;
const backslash = 0x5c;
const [openBracket, openBrace] = [0x5b, 0x7b];

/** Characters of a string after which it is most likely base64: long, and without an escape. */
const longString = 64;

/** The last place before the next quote, if nothing up to it is escaped; else where it is. */
function skipPlain(frame: Uint8Array, index: number): number {
  const end = frame.indexOf(quote, index);
  return end === -1 || frame.subarray(index, end).includes(backslash) ? index : end - 1;
}

/** Whether there are at most so many opening brackets in all, inside strings or not. A request has two, and to look for them so takes a fifth of the time. */
function hasFewBrackets(frame: Uint8Array, most: number): boolean {
  let left = most;
  for (const bracket of [openBracket, openBrace]) {
    for (let at = frame.indexOf(bracket); at !== -1; at = frame.indexOf(bracket, at + 1)) {
      if (left === 0) return false;
      left -= 1;
    }
  }
  return true;
}

/** Whether arrays and objects nest at most `maxDepth` deep; brackets inside strings do not count. Reads each byte once. */
export function isShallow(frame: Uint8Array, maxDepth: number): boolean {
  if (hasFewBrackets(frame, maxDepth)) return true;
  let depth = 0;
  let inString = false;
  let start = 0;
  for (let index = 0; index < frame.length; index += 1) {
    const byte = frame[index];
    if (inString) {
      if (byte === backslash) index += 1;
      else if (byte === quote) inString = false;
      else if (index - start === longString) index = skipPlain(frame, index);
    } else if (byte === quote) [inString, start] = [true, index];
    else if (byte === openBracket || byte === openBrace) depth += 1;
    else if (byte === 0x5d || byte === 0x7d) depth -= 1;
    if (depth > maxDepth) return false;
  }
  return true;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Reads the JSON of one frame.
 * @throws AgentError `ERR_PARSE` for invalid UTF-8, nesting deeper than `maxDepth`, or text that is not JSON (RFC 8259).
 */
export function parseFrame(frame: Uint8Array, maxDepth: number = defaultMaxDepth): unknown {
  if (!isShallow(frame, maxDepth)) throw new AgentError('ERR_PARSE');
  try {
    return JSON.parse(utf8.decode(frame));
  } catch (cause) {
    throw new AgentError('ERR_PARSE', {}, { cause });
  }
}

/** Writes a message as one frame, LF included. JSON escapes every control character, so that no LF stands inside. */
export function encodeFrame(message: unknown): string {
  return `${JSON.stringify(message)}\n`;
}
