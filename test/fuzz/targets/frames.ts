import { FrameReader, FrameTooLargeError, isAgentError, parseFrame } from '@kms-agent/protocol';
import fc from 'fast-check';
import { byteChanges, changeBytes } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const maxFrameBytes = 200;
const maxDepth = 4;

/** Lines of JSON, of anything, and of lengths around the limit. */
const line = fc.oneof(
  fc.json({ maxDepth: 6 }).map((text) => Buffer.from(text)),
  fc.tuple(fc.json({ maxDepth: 3 }), byteChanges).map(([text, changes]) => changeBytes(Buffer.from(text), changes)),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  fc.integer({ min: maxFrameBytes - 2, max: maxFrameBytes + 2 }).map((length) => Buffer.alloc(length, ' ')),
  fc.constant(Buffer.alloc(0)),
);
const stream = fc.record({ lines: fc.array(line, { maxLength: 12 }), rest: line, cuts: fc.array(fc.nat(250), { maxLength: 60 }) });

/** The frames of a stream by the words of the specification; undefined where one is too long. */
function expectFrames(bytes: Buffer): (Buffer | undefined)[] {
  const frames: (Buffer | undefined)[] = [];
  const parts = bytes.toString('latin1').split('\n');
  for (const [index, part] of parts.entries()) {
    if (part.length > maxFrameBytes) return [...frames, undefined];
    if (part.length > 0 && index < parts.length - 1) frames.push(Buffer.from(part, 'latin1'));
  }
  return frames;
}

/** What the reader makes of a stream that comes in pieces. */
function readFrames(bytes: Buffer, cuts: readonly number[]): (Buffer | undefined)[] {
  const reader = new FrameReader({ maxFrameBytes });
  const frames: (Buffer | undefined)[] = [];
  let from = 0;
  try {
    for (const cut of [...cuts, bytes.length]) {
      frames.push(...reader.push(bytes.subarray(from, from + cut)));
      from = Math.min(from + cut, bytes.length);
      must(reader.pendingBytes <= maxFrameBytes, `${reader.pendingBytes} bytes are held`);
    }
  } catch (error) {
    if (!(error instanceof FrameTooLargeError)) throw error;
    frames.push(...error.complete, undefined);
  }
  return frames;
}

const depthOf = (value: unknown): number => (typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0);

/** The value of a frame by JSON.parse alone; undefined for what must be refused. */
function expectValue(frame: Buffer): string | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(frame));
    return depthOf(value) > maxDepth ? undefined : JSON.stringify(value);
  } catch {
    return undefined; // no UTF-8, or no JSON
  }
}

function readValue(frame: Buffer): string | undefined {
  try {
    return JSON.stringify(parseFrame(frame, maxDepth));
  } catch (error) {
    if (isAgentError(error, 'ERR_PARSE')) return undefined;
    throw error;
  }
}

const show = (frames: readonly (Buffer | undefined)[]): string => JSON.stringify(frames.map((frame) => frame?.toString('latin1') ?? null));

/** The byte stream of a connection. */
export const frames: Target = {
  name: 'frames',
  promise: 'a stream gives the same frames wherever it is cut, holds no more than the limit, and each frame is a value or ERR_PARSE',
  runs: 3000,
  open: () =>
    prove(stream, ({ lines, rest, cuts }) => {
      const bytes = Buffer.concat([...lines.flatMap((each) => [each, Buffer.from('\n')]), rest]);
      const expected = expectFrames(bytes);
      const read = readFrames(bytes, cuts);
      must(show(read) === show(expected), `${show(read)}, not ${show(expected)}`);
      for (const frame of read) if (frame) must(readValue(frame) === expectValue(frame), `${show([frame])} is read as ${readValue(frame)}`);
    }),
};
