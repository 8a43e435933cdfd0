import { makeOpenRpcDocument } from '@kms-agent/protocol';
import fc from 'fast-check';

/** JSON Schema, as far as the OpenRPC document of the protocol uses it. */
interface Schema {
  readonly type?: string;
  readonly enum?: readonly (string | boolean)[];
  readonly anyOf?: readonly Schema[];
  readonly pattern?: string;
  readonly contentEncoding?: string;
  readonly description?: string;
  readonly examples?: readonly string[];
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: Schema | false;
}

/** Stands for something that only a running agent knows: the `index`-th value of a pool. */
export class Pick {
  readonly pool: string;
  readonly index: number;

  constructor(pool: string, index: number) {
    this.pool = pool;
    this.index = index;
  }
}

/** Values of fields by the name of the field. */
export type Pools = Readonly<Record<string, readonly unknown[]>>;

/** Puts what pools hold in the place of picks. */
export function resolvePicks(value: unknown, pools: Pools): unknown {
  if (value instanceof Pick) {
    const pool = pools[value.pool] ?? [];
    return pool.length === 0 ? '' : pool[value.index % pool.length];
  }
  if (Array.isArray(value)) return value.map((item) => resolvePicks(item, pools));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, child]) => [name, resolvePicks(child, pools)]));
}

/** Bytes of a base64 field, by the words of its description. */
function base64({ description = '' }: Schema): fc.Arbitrary<unknown> {
  const [, min = '0', max = '64'] = /(\d+) to (\d+) bytes/.exec(description) ?? [];
  const [least, most] = [Number(min), Number(max)];
  const sizes = fc.oneof({ weight: 20, arbitrary: fc.nat(64) }, fc.constantFrom(least, most, most + 1, 12, 16, 32));
  return sizes.chain((size) => fc.uint8Array({ minLength: size, maxLength: size })).map((bytes) => Buffer.from(bytes).toString('base64'));
}

function text(schema: Schema): fc.Arbitrary<unknown> {
  const { enum: names, pattern, contentEncoding, examples, maxLength = 64 } = schema;
  if (names) return fc.constantFrom(...names);
  if (contentEncoding === 'base64') return base64(schema);
  if (pattern) return fc.stringMatching(new RegExp(pattern));
  const any = fc.string({
    unit: fc.constantFrom('grapheme', 'binary').chain((unit) => fc.string({ unit, minLength: 1, maxLength: 1 })),
    maxLength: Math.min(maxLength, 40),
  });
  const long = fc.constantFrom(maxLength, maxLength + 1).map((length) => 'x'.repeat(length));
  return fc.oneof({ weight: 20, arbitrary: any }, long, ...(examples ? [{ weight: 40, arbitrary: fc.constantFrom(...examples, '30d') }] : []));
}

function list({ items = {}, minItems = 0, maxItems = 8 }: Schema, name: string): fc.Arbitrary<unknown> {
  return fc.array(arbitraryOf(items, name), { minLength: minItems, maxLength: Math.max(minItems, Math.min(maxItems, 6)) });
}

function object({ properties, required = [], additionalProperties }: Schema): fc.Arbitrary<unknown> {
  if (!properties) return fc.dictionary(fc.string({ maxLength: 12 }), arbitraryOf(additionalProperties || {}, ''), { maxKeys: 6 });
  const fields = Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, arbitraryOf(schema, name)]));
  return fc.record(fields, { requiredKeys: required.filter((name) => Object.hasOwn(fields, name)) });
}

function plain(schema: Schema, name: string): fc.Arbitrary<unknown> {
  const { type, anyOf, minimum = -10, maximum = 10 } = schema;
  if (anyOf) return fc.oneof(...anyOf.map((choice) => arbitraryOf(choice, name)));
  if (type === 'string') return text(schema);
  if (type === 'integer') return fc.oneof(fc.integer({ min: minimum, max: Math.min(maximum, minimum + 100) }), fc.constantFrom(minimum, maximum, maximum + 1));
  if (type === 'boolean') return fc.boolean();
  if (type === 'array') return list(schema, name);
  if (type === 'object') return object(schema);
  return fc.jsonValue({ maxDepth: 2 });
}

/** Fields that a running agent has good values for. */
const pooled = new Set([
  'keyId',
  'destinationKeyId',
  'keyVersionId',
  'aliasName',
  'ciphertextBlob',
  'signature',
  'message',
  'iv',
  'aad',
  'importToken',
  'encryptedKeyMaterial',
  'nextToken',
  'method',
  'actions',
  'principals',
  'rotationInterval',
  'unlockLifetime',
  'materialExpireTime',
  'token',
]);

/** Values of a field: what its schema lets through, what lies just beside it, and what the agent knows. */
export function arbitraryOf(schema: Schema, name: string): fc.Arbitrary<unknown> {
  const made = plain(schema, name);
  if (!pooled.has(name) || schema.type === 'array') return made;
  return fc.oneof({ weight: 4, arbitrary: fc.nat(63).map((index) => new Pick(name, index)) }, { weight: 1, arbitrary: made });
}

/** A method and parameters for it. */
export interface Call {
  readonly method: string;
  readonly params: unknown;
}

const document = makeOpenRpcDocument('fuzz') as {
  methods: { name: string; params: { name: string; required: boolean; schema: Schema }[] }[];
}; // our own document, whose form protocol.test.ts checks

/** Calls of every method that the protocol has, from its own description: a new one is fuzzed from its first day. */
export const callsByMethod: ReadonlyMap<string, fc.Arbitrary<Call>> = new Map(
  document.methods.map(({ name, params }) => {
    const fields = Object.fromEntries(params.map((param) => [param.name, arbitraryOf(param.schema, param.name)]));
    const requiredKeys = params.filter(({ required }) => required).map((param) => param.name);
    return [name, fc.record({ method: fc.constant(name), params: fc.record(fields, { requiredKeys }) })];
  }),
);
