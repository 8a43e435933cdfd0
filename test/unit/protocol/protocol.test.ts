import {
  AgentError,
  decodeBase64,
  decodeBlob,
  decodeParams,
  encodeBase64,
  encodeBlob,
  encodeBlobHeader,
  encodeFrame,
  encodeParams,
  errors,
  FrameReader,
  findSocket,
  isAgentError,
  isMethodName,
  isShallow,
  makeOpenRpcDocument,
  methodNames,
  parseBlob,
  parseFrame,
} from '@kms-agent/protocol';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkEnvelope } from '../../../daemon/src/front/jsonrpc/envelope.ts';
import { makeUuid7 } from '../../../daemon/src/keyring/uuid7.ts';
import { derToP1363, p1363ToDer } from '../../../daemon/src/providers/software/ecdsa-format.ts';
import { makeRecoveryCode, parseRecoveryCode } from '../../../daemon/src/vault/keyslots/recovery.ts';

const bytes = (constraints: fc.IntArrayConstraints = {}): fc.Arbitrary<Uint8Array> => fc.uint8Array(constraints);

describe('frames', () => {
  test('FrameReader: gives the same frames however the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.json({ maxDepth: 3 }), { minLength: 1, maxLength: 20 }), fc.array(fc.nat(200), { maxLength: 100 }), (texts, cuts) => {
        const stream = Buffer.from(texts.map((text) => `${text}\n`).join(''));
        const reader = new FrameReader();
        const seen: string[] = [];
        let from = 0;
        for (const cut of [...cuts, stream.length]) {
          seen.push(...reader.push(stream.subarray(from, Math.min(from + cut, stream.length))).map(String));
          from = Math.min(from + cut, stream.length);
        }
        expect(seen).toEqual(texts);
        expect(reader.pendingBytes).toBe(0);
      }),
    );
  });

  test('FrameReader: one byte past the limit is ERR_TOO_LARGE, before the line ends, and the frames before it are kept', () => {
    const reader = new FrameReader({ maxFrameBytes: 4 });
    expect(reader.push(Buffer.from('1234\n12'))).toHaveLength(1);
    expect(() => reader.push(Buffer.from('34\nab\n12345'))).toThrow(
      expect.objectContaining({ code: 'ERR_TOO_LARGE', complete: [Buffer.from('1234'), Buffer.from('ab')] }),
    );
  });

  test('FrameReader: a MiB fed byte by byte takes linear time', () => {
    const reader = new FrameReader();
    const one = Buffer.from('x');
    for (let index = 0; index < 1_048_576; index += 1) reader.push(one);
    expect(reader.push(Buffer.from('\n'))[0]).toHaveLength(1_048_576);
  });

  test('isShallow: agrees with the parsed value', () => {
    const depthOf = (value: unknown): number => (typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0);
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.nat(8), (value, limit) => {
        expect(isShallow(Buffer.from(JSON.stringify(value)), limit)).toBe(depthOf(value) <= limit);
      }),
    );
  });

  test('parseFrame: any bytes give a value or ERR_PARSE', () => {
    fc.assert(
      fc.property(bytes({ maxLength: 64 }), (frame) => {
        try {
          parseFrame(frame);
        } catch (error) {
          expect(isAgentError(error, 'ERR_PARSE')).toBe(true);
        }
      }),
    );
  });

  test('encodeFrame: no LF inside', () => expect(encodeFrame({ text: 'a\nb\u2028' }).indexOf('\n')).toBe(encodeFrame({ text: 'a\nb\u2028' }).length - 1));
});

describe('envelope', () => {
  test('checkEnvelope: any JSON is an envelope or ERR_INVALID_REQUEST', () => {
    const member = fc.record(
      { jsonrpc: fc.oneof(fc.constant('2.0'), fc.jsonValue()), id: fc.jsonValue(), method: fc.jsonValue(), params: fc.jsonValue() },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.oneof(member, fc.jsonValue()), (value) => {
        try {
          expect(typeof checkEnvelope(value).method).toBe('string');
        } catch (error) {
          expect(isAgentError(error, 'ERR_INVALID_REQUEST')).toBe(true);
        }
      }),
    );
  });
});

describe('base64 and blobs', () => {
  test('decodeBase64: reads back what encodeBase64 wrote, in memory of its own', () => {
    fc.assert(
      fc.property(bytes({ maxLength: 300 }), (value) => {
        const decoded = decodeBase64(encodeBase64(value));
        expect(decoded).toEqual(value);
        expect(decoded?.buffer.byteLength).toBe(value.length);
      }),
    );
  });

  test('decodeBase64: what it reads is canonical', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 16 }), (text) => {
        const decoded = decodeBase64(text);
        if (decoded) expect(encodeBase64(decoded)).toBe(text);
      }),
    );
  });

  test('decodeBlob: takes apart what encodeBlob put together, and any bytes without an error', () => {
    fc.assert(
      fc.property(fc.uuid(), bytes({ minLength: 12, maxLength: 12 }), bytes({ minLength: 16, maxLength: 80 }), (keyVersionId, iv, ciphertext) => {
        const blob = encodeBlob(encodeBlobHeader(keyVersionId), iv, ciphertext);
        const parsed = decodeBlob(blob);
        expect([parsed?.keyVersionId, parsed && Buffer.from(parsed.iv).equals(iv), parsed && Buffer.from(parsed.ciphertext).equals(ciphertext)]).toEqual([
          keyVersionId,
          true,
          true,
        ]);
        expect(parseBlob(blob)).toEqual({ format: 1, algorithm: 'AES_GCM', keyVersionId });
      }),
    );
    fc.assert(
      fc.property(bytes({ maxLength: 80 }), (blob) => {
        expect([undefined, 1]).toContain(decodeBlob(blob)?.format);
      }),
    );
  });

  test.each([
    ['other magic', 0, 0x6a],
    ['another format', 3, 2],
    ['another algorithm', 4, 2],
    ['an unknown bound bit', 5, 8],
  ])('decodeBlob: %s is no blob', (_what, at, value) => {
    const blob = encodeBlob(encodeBlobHeader('018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f'), new Uint8Array(12), new Uint8Array(16));
    expect(decodeBlob(blob)).toBeDefined();
    blob[at] = value;
    expect(decodeBlob(blob)).toBeUndefined();
  });
});

describe('methods and errors', () => {
  test('error table: numbers are unique', () => expect(new Set(Object.values(errors).map(({ number }) => number)).size).toBe(Object.keys(errors).length));

  test('isAgentError: narrows by code and knows errors of another copy of the package', () => {
    const error = new AgentError('ERR_BUSY');
    const foreign = Object.assign(new Error('x'), { code: 'ERR_BUSY', [Symbol.for('kms-agent.AgentError')]: true });
    expect([isAgentError(error, 'ERR_BUSY'), isAgentError(error, 'ERR_TIMEOUT'), isAgentError(foreign, 'ERR_BUSY'), isAgentError(new Error('x'))]).toEqual([
      true,
      false,
      true,
      false,
    ]);
  });

  test('isMethodName: inherited names are none', () =>
    expect(['sign', 'constructor', '__proto__', 'toString'].map(isMethodName)).toEqual([true, false, false, false]));

  test('decodeParams: Aliyun_AES_256 means AES_256', () => expect(decodeParams('createKey', { keySpec: 'Aliyun_AES_256' })).toEqual({ keySpec: 'AES_256' }));

  test('encodeParams: an absent field stays absent where its object has a refinement', () => expect(encodeParams('generateDataKey', {})).toEqual({}));

  test('makeOpenRpcDocument: has every method with its parameters and result', () => {
    const { methods } = makeOpenRpcDocument('1.2.3') as {
      methods: { name: string; params: { name: string; required: boolean }[]; result: { schema: object } }[];
    };
    expect(methods.map(({ name }) => name)).toEqual(methodNames);
    expect(methods.find(({ name }) => name === 'sign')?.params.map(({ name, required }) => `${name}${required ? '' : '?'}`)).toEqual([
      'keyId',
      'message',
      'messageType?',
      'algorithm?',
      'signatureFormat?',
      'keyVersionId?',
    ]);
  });

  test('findSocket: option, then KMS_AGENT_SOCK, then the user’s if it is there, then the system’s; a long path is an error', () => {
    expect(findSocket('/a', { KMS_AGENT_SOCK: '/b' })).toEqual({ path: '/a', source: 'option' });
    expect(findSocket(undefined, { KMS_AGENT_SOCK: '/b' })).toEqual({ path: '/b', source: 'KMS_AGENT_SOCK' });
    expect(findSocket(undefined, { XDG_RUNTIME_DIR: '/nonexistent' })).toEqual({ path: '/run/kms-agent/agent.sock', source: 'system' });
    expect(() => findSocket(`/${'x'.repeat(107)}`)).toThrow(/108 bytes/);
  });
});

describe('codes, signatures, ids', () => {
  test('makeRecoveryCode: parses back as a person types it, and one wrong character is noticed', () => {
    for (let round = 0; round < 50; round += 1) {
      const { secret, text } = makeRecoveryCode();
      expect(parseRecoveryCode(text.toLowerCase().replaceAll('-', ' ').replaceAll('0', 'o').replaceAll('1', 'l'))).toEqual(secret);
      const at = round % text.length;
      const wrong = `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`;
      if (text[at] !== '-') expect(parseRecoveryCode(wrong)?.equals(secret) ?? false).toBe(false);
    }
  });

  test('p1363ToDer and derToP1363: there and back', () => {
    fc.assert(
      fc.property(bytes({ minLength: 64, maxLength: 64 }), (signature) => {
        expect(derToP1363(p1363ToDer(signature) ?? new Uint8Array())).toEqual(signature);
      }),
    );
  });

  test('makeUuid7: sorts in the order of making, also when the clock goes back', () => {
    const ids = [1_000_000_000_000, 1_000_000_000_000, 999_999_999_999, 1_000_000_000_001, ...Array.from({ length: 10_000 }, () => 5)].map(makeUuid7);
    expect([...ids].sort()).toEqual(ids);
    expect(ids.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id))).toBe(true);
  });
});

describe('tags named __proto__', () => {
  const tags = JSON.parse('{"__proto__":"x","a":"b"}') as Record<string, string>;

  test.each([
    ['tagKey', { keyId: 'alias/a', tags }],
    ['createKey', { tags }],
    ['listKeys', { filters: { tags } }],
  ] as const)('%s: the client refuses what the agent would refuse, and drops nothing', (method, params) => {
    const refusal = { code: 'ERR_INVALID_PARAMS', details: { reason: '__proto__ cannot be the name of a tag' } };
    expect(() => encodeParams(method, params)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_PARAMS' }));
    try {
      decodeParams(method, JSON.parse(JSON.stringify(params)));
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject(refusal);
    }
  });

  test('other names that objects have: sent as they are', () => {
    const named = { keyId: 'alias/a', tags: { constructor: 'x', toString: 'y' } };
    expect(JSON.stringify(encodeParams('tagKey', named))).toBe(JSON.stringify(named));
  });
});
