import { decodeBlob, encodeBlob, parseBlob } from '@kms-agent/protocol';
import fc from 'fast-check';
import { Wire } from '../../kit/wire.ts';
import { checkAnswer, FuzzAgent, inTime, type Sample } from '../agent.ts';
import { type ByteChange, byteChanges, changeBytes } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const changed = fc.record({ sample: fc.nat(63), field: fc.constantFrom('made', 'aad', 'message'), changes: byteChanges });
const many = fc.array(changed, { minLength: 1, maxLength: 32 });

/** A blob that is taken apart can be put together again: nothing of it is ignored. */
function checkParsing(blob: Uint8Array): void {
  const parsed = decodeBlob(blob);
  must((parsed === undefined) === (parseBlob(blob) === undefined), 'decodeBlob and parseBlob do not agree');
  if (parsed) must(Buffer.from(encodeBlob(parsed.header, parsed.iv, parsed.ciphertext)).equals(Buffer.from(blob)), 'a part of a blob was ignored');
}

/** The request with one of its fields changed. */
function changeSample(
  { params, made }: Sample,
  field: string,
  changes: readonly ByteChange[],
): { params: Record<string, string>; bytes: Buffer; isSame: boolean } {
  const name = field === 'made' || params[field] === undefined ? made : field;
  const before = Buffer.from(params[name] ?? '', 'base64');
  const bytes = changeBytes(before, changes);
  return { params: { ...params, [name]: bytes.toString('base64') }, bytes, isSame: bytes.equals(before) };
}

/** Ciphertexts and signatures that were good once. */
export const blobs: Target = {
  name: 'blobs',
  promise: 'what was changed by a bit does not open and does not verify, with one answer whatever the change',
  runs: 150,
  open: (stack) => {
    const agent = stack.use(new FuzzAgent());
    return prove(many, async (asked) => {
      await agent.run(async () => {
        using wire = await Wire.open(agent.socketPath);
        for (const { sample: index, field, changes } of asked) {
          const sample = agent.samples[index % agent.samples.length];
          if (!sample) continue;
          const { params, bytes, isSame } = changeSample(sample, field, changes);
          checkParsing(bytes);
          const answer = await inTime(wire.call(sample.method, params), `${sample.method} is not answered`);
          const code = checkAnswer(sample.method, answer);
          const isEmpty = bytes.length === 0 && code === 'ERR_INVALID_PARAMS';
          const said = sample.method === 'verify' && code === 'ok' ? `valid: ${answer.result?.['valid'] === true}` : code;
          const expected = sample.method === 'verify' ? `valid: ${isSame}` : isSame ? 'ok' : 'ERR_INVALID_CIPHERTEXT';
          must(said === expected || isEmpty, `${sample.method} ${JSON.stringify(params)}: ${said}, not ${expected}`);
        }
      });
    });
  },
};
