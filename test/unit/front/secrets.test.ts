import { isAgentError, parseFrame } from '@kms-agent/protocol';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseRequest } from '../../../daemon/src/front/jsonrpc/secrets.ts';

const depth = 32;
const request = (params: unknown, method = 'unlock'): object => ({ jsonrpc: '2.0', id: 1, method, params });
const frameOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const withPin = (pin: unknown): object => request({ token: 'hsm', pin });

describe('parseRequest', () => {
  test.each(['1234', 'with "quotes" and \\ and /', 'äöü €', '', ' '])('the text of params.pin comes as bytes and is gone from the frame: %s', (pin) => {
    const frame = frameOf(withPin(pin));
    expect(parseRequest(frame, depth)).toEqual(withPin(Buffer.from(pin)));
    if (pin.length > 1) expect(frame.includes(JSON.stringify(pin).slice(1, -1))).toBe(false);
  });

  test('in a batch, each of them', () => {
    const frame = frameOf([withPin('1111'), request({}, 'status'), withPin('2222')]);
    expect(parseRequest(frame, depth)).toEqual([withPin(Buffer.from('1111')), request({}, 'status'), withPin(Buffer.from('2222'))]);
    expect(/1111|2222/.test(frame.toString())).toBe(false);
  });

  test('white space around it, and a slash that is escaped', () => {
    const frame = Buffer.from('{"params" : { "pin"\t:\r "a\\/b" , "token" : "x" } }');
    expect(parseRequest(frame, depth)).toEqual({ params: { pin: Buffer.from('a/b'), token: 'x' } });
  });

  test.each([
    ['a tag', request({ tags: { pin: 'blue' } }, 'tagKey')],
    ['a tag beside a PIN', request({ pin: '1234', tags: { pin: 'blue' } })],
    ['a member of the envelope', { pin: '1234', params: {} }],
    ['a number', withPin(1234)],
    ['null', withPin(null)],
    ['an object', withPin({ pin: { pin: 'x' } })],
    ['a name that ends in it', request({ 'my"pin': '1234' })],
    ['rare escapes', withPin('tab\tand\u0001')],
    ['no params', { method: 'pin' }],
    ['a text', '"pin":"1234"'],
  ])('what else is called so stays what it is: %s', (_name, value) => {
    expect(parseRequest(frameOf(value), depth)).toEqual(value);
  });

  test('twice the same member: the last one counts, as in JSON.parse', () => {
    expect(parseRequest(Buffer.from('{"params":{"pin":"first","pin":"last"}}'), depth)).toEqual({ params: { pin: 'last' } });
  });

  test.each([
    ['{"params":{"pin":"1234}}'],
    ['{"params":{"pin":"12\n34"}}'],
    ['{"params":{"pin":"1234"'],
    ['{"params":{"pin" "1234"}}'],
    ['{"params":{"pin":"12\\q34"}}'],
    ['"pin":"1234"'],
  ])('what is not JSON is refused just the same: %s', (text) => {
    const codeOf = (parse: (frame: Buffer) => unknown): string => {
      try {
        return JSON.stringify(parse(Buffer.from(text)));
      } catch (error) {
        return isAgentError(error) ? error.code : String(error);
      }
    };
    expect(codeOf((frame) => parseRequest(frame, depth))).toBe('ERR_PARSE');
    expect(codeOf((frame) => parseFrame(frame, depth))).toBe('ERR_PARSE');
  });

  test('whatever the JSON: it is what JSON.parse says, but for the text of params.pin', () => {
    const name = fc.constantFrom('pin', 'params', 'other', 'my"pin');
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.string({ unit: 'grapheme' }),
        fc.constant('"pin":"1234"'),
        fc.integer(),
        fc.constant(null),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(name, tie('value'), { maxKeys: 3 }),
      ),
    }));
    const textOf = (pin: unknown): unknown => (Buffer.isBuffer(pin) ? pin.toString() : pin);
    fc.assert(
      fc.property(value, (json) => {
        const parsed = parseRequest(frameOf(json), depth);
        for (const entry of Array.isArray(parsed) ? parsed : [parsed]) {
          const params = (entry as { params?: { pin?: unknown } } | null)?.params; // as the JSON happens to be
          if (typeof params?.pin === 'object') params.pin = textOf(params.pin);
        }
        expect(JSON.stringify(parsed)).toBe(JSON.stringify(json));
      }),
      { numRuns: 2000 },
    );
  });

  test('invalid UTF-8 in it is refused', () => {
    const frame = Buffer.concat([Buffer.from('{"params":{"pin":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}}')]);
    expect(() => parseRequest(frame, depth)).toThrow(expect.objectContaining({ code: 'ERR_PARSE' }));
  });

  test('depth counts as ever', () => {
    expect(() => parseRequest(Buffer.from(`{"params":{"pin":"1","x":${'['.repeat(40)}${']'.repeat(40)}}}`), depth)).toThrow(
      expect.objectContaining({ code: 'ERR_PARSE' }),
    );
  });
});

test('parseRequest: a frame of nothing but PINs costs no more memory than it has bytes', () => {
  const frame = Buffer.from(`{"a":[${Array.from({ length: 20_000 }, () => '{"pin":""}').join(',')}]}`);
  const before = process.memoryUsage().arrayBuffers;
  parseRequest(frame, 32);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * frame.length);
});

test('parseRequest: what is too long for a PIN is a string like any other', () => {
  const pin = 'x'.repeat(5000);
  expect(parseRequest(Buffer.from(JSON.stringify({ params: { pin } })), 32)).toEqual({ params: { pin } });
});
