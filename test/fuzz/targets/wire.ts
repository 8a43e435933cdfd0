import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { Wire, type WireResponse } from '../../kit/wire.ts';
import { checkAnswer, FuzzAgent, inTime } from '../agent.ts';
import { byteChanges, changeBytes, changeJson, jsonChanges } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const maxFrameBytes = 1_048_576;

const id = fc.oneof(fc.integer(), fc.string({ maxLength: 130 }), fc.constant(null), fc.jsonValue({ maxDepth: 1 }));
const method = fc.oneof(fc.constantFrom('status', 'whoAmI', 'generateRandom', 'rpc.discover', 'nope', '__proto__'), fc.string({ maxLength: 10 }));
const envelope = fc.record(
  {
    jsonrpc: fc.oneof({ weight: 9, arbitrary: fc.constant('2.0') }, fc.jsonValue({ maxDepth: 0 })),
    id,
    method,
    params: fc.oneof(fc.constant({}), fc.jsonValue({ maxDepth: 2 })),
  },
  { requiredKeys: ['jsonrpc', 'method'] },
);
const request = fc.tuple(envelope, fc.oneof(fc.constant([]), jsonChanges)).map(([value, changes]) => changeJson(value, changes));
const json = fc.oneof({ weight: 6, arbitrary: request }, { weight: 2, arbitrary: fc.array(request, { maxLength: 5 }) }, fc.jsonValue());

const line: fc.Arbitrary<Buffer> = fc.oneof(
  { weight: 60, arbitrary: json.map((value) => Buffer.from(JSON.stringify(value))) },
  { weight: 20, arbitrary: fc.tuple(json, byteChanges).map(([value, changes]) => changeBytes(Buffer.from(JSON.stringify(value)), changes)) },
  { weight: 10, arbitrary: fc.uint8Array({ maxLength: 30 }).map((bytes) => Buffer.from(bytes)) },
  { weight: 2, arbitrary: fc.integer({ min: 20, max: 5000 }).map((depth) => Buffer.from('['.repeat(depth) + ']'.repeat(depth))) },
  { weight: 2, arbitrary: fc.integer({ min: 250, max: 260 }).map((count) => Buffer.from(`[${Array.from({ length: count }, () => '1').join()}]`)) },
  { weight: 1, arbitrary: fc.constantFrom(maxFrameBytes, maxFrameBytes + 1).map((length) => Buffer.alloc(length, ' ')) },
);
const stream = fc.record({ lines: fc.array(line, { minLength: 1, maxLength: 12 }), cuts: fc.array(fc.nat(300), { maxLength: 12 }) });

const isId = (value: unknown): boolean => (typeof value === 'string' ? value.length <= 128 : value === null || Number.isSafeInteger(value));
const maxDepth = 32;

/** Whether arrays and objects nest deeper than `depth`. */
const isDeeper = (value: unknown, depth: number): boolean =>
  typeof value === 'object' && value !== null && (depth === 0 || Object.values(value).some((child) => isDeeper(child, depth - 1)));

/** The id of the answer that the protocol promises to an entry, as JSON; undefined for a notification. */
function expectId(entry: unknown): string | undefined {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) return 'null';
  const { jsonrpc, method: name, id: own, params, ...rest } = entry as Record<string, unknown>;
  const hasParams = Object.hasOwn(entry, 'params');
  const isGood = jsonrpc === '2.0' && typeof name === 'string' && Object.keys(rest).length === 0 && !Object.hasOwn(entry, '__proto__');
  const areParams = !hasParams || (typeof params === 'object' && params !== null);
  if (!isGood || !areParams || (Object.hasOwn(entry, 'id') && !isId(own))) return 'null';
  return Object.hasOwn(entry, 'id') ? JSON.stringify(own) : undefined;
}

/** The ids of the answers to a line, as JSON. */
function expectIds(frame: Buffer): string[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(frame));
  } catch {
    return ['null'];
  }
  const isBatch = Array.isArray(value) && value.length > 0 && value.length <= 256;
  if (isDeeper(value, maxDepth) || (Array.isArray(value) && !isBatch)) return ['null'];
  return (isBatch ? (value as unknown[]) : [value]).map(expectId).filter((expected) => expected !== undefined);
}

/** Ids of all answers that a stream must get; a frame that is too long is the last one that is answered. */
function expectAll(bytes: Buffer): string[] {
  const all: string[] = [];
  for (const part of bytes.toString('latin1').split('\n').slice(0, -1)) {
    if (part.length > maxFrameBytes) return [...all, 'null'];
    if (part.length > 0) all.push(...expectIds(Buffer.from(part, 'latin1')));
  }
  return all;
}

async function sendInPieces(wire: Wire, bytes: Buffer, cuts: readonly number[]): Promise<void> {
  let from = 0;
  for (const cut of cuts) {
    wire.send(bytes.subarray(from, from + cut));
    from = Math.min(from + cut, bytes.length);
    await setImmediate();
  }
  wire.socket.end(bytes.subarray(from));
}

/** What is said by whoever can open the socket. */
export const wire: Target = {
  name: 'wire',
  promise: 'whatever a peer sends, each request gets its answer and nothing else does, and the agent stays well',
  runs: 250,
  open: (stack) => {
    const agent = stack.use(new FuzzAgent());
    return prove(stream, async ({ lines, cuts }) => {
      await agent.run(async () => {
        using peer = await Wire.open(agent.socketPath);
        const bytes = Buffer.concat(lines.flatMap((each) => [each, Buffer.from('\n')]));
        await sendInPieces(peer, bytes, cuts);
        const answers: WireResponse[] = [];
        for (let text = await inTime(peer.line(), 'no answer, and no end'); text !== undefined; text = await inTime(peer.line(), 'no answer, and no end'))
          answers.push(...[JSON.parse(Buffer.from(text, 'latin1').toString()) as WireResponse | WireResponse[]].flat());
        for (const answer of answers) checkAnswer('', answer);
        const [got, expected] = [answers.map(({ id: own }) => JSON.stringify(own)).sort(), expectAll(bytes).sort()];
        must(got.join() === expected.join(), `answers to ${got.join()}, not to ${expected.join()}, for ${bytes.toString('latin1').slice(0, 2000)}`);
      });
    });
  },
};
