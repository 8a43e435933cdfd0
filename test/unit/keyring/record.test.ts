import { AgentError } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import { decodeKey, readIndex } from '../../../daemon/src/keyring/record.ts';

const id = '018f3c5e1b2a7c3d8e4f5a6b7c8d9e0f';

/** A sealed form: fixed part with a number of versions, ids, length and JSON. */
const record = (versions: number, ids: string, json = '', format = 1): Uint8Array => {
  const head = Buffer.alloc(9);
  head.writeUInt8(format, 0);
  head.writeUInt16BE(versions, 7);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(json.length);
  return Buffer.concat([head, Buffer.from(ids, 'hex'), length, Buffer.from(json)]);
};

test.each([
  ['nothing', new Uint8Array()],
  ['another format', new Uint8Array(64)],
  ['fewer ids than it says', record(3, id)],
  ['a lifetime without room', record(1, id, '', 2)],
  ['no JSON', record(1, id, '{"material')],
  ['JSON that is no object', record(1, id, 'null')],
  ['more versions than ids', record(0, '', '{"versions":[[0,0,0,0,0]]}')],
  ['more ids than versions', record(1, id, '{"versions":[]}')],
  ['less material than it says', record(1, id, '{"versions":[[0,0,0,32,0]]}')],
])('decodeKey: %s is damaged, and the error holds nothing of it', (_what, bytes) => {
  const error: unknown = (() => {
    try {
      return decodeKey('018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f', bytes);
    } catch (thrown) {
      return thrown;
    }
  })();
  expect(error).toBeInstanceOf(AgentError);
  expect(error).toMatchObject({
    code: 'ERR_INTERNAL',
    cause: expect.objectContaining({ message: expect.stringMatching(/^a key record /) as string }) as object,
  });
  expect(String((error as AgentError).cause)).not.toContain('material"');
});

test('readIndex: a record without room for its ids is damaged', () => {
  expect(() => readIndex(record(3, id))).toThrow(AgentError);
});
