import fc from 'fast-check';

/** One change to bytes. Places are parts of the length from 0 to 1, so that a change fits whatever it is made to. */
export type ByteChange =
  | { readonly what: 'set' | 'insert'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly what: 'flip'; readonly at: number; readonly bit: number }
  | { readonly what: 'remove' | 'repeat' | 'move'; readonly at: number; readonly length: number }
  | { readonly what: 'cut'; readonly at: number };

const place = fc.double({ min: 0, max: 1, noNaN: true });
/** Values that length fields, signs and ends of text are made of. */
const telling = fc.constantFrom(
  ...['00', 'ff', '0a', '22', '7f', '80', 'ffff', '0000', 'ffffffff', '00000000', '7fffffff'].map((hex) => Buffer.from(hex, 'hex')),
);
const someBytes: fc.Arbitrary<Uint8Array> = fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 8 }), telling);

const byteChange: fc.Arbitrary<ByteChange> = fc.oneof(
  fc.record({ what: fc.constant('flip'), at: place, bit: fc.nat(7) }),
  fc.record({ what: fc.constantFrom('set', 'insert'), at: place, bytes: someBytes }),
  fc.record({ what: fc.constantFrom('remove', 'repeat', 'move'), at: place, length: fc.integer({ min: 1, max: 64 }) }),
  fc.record({ what: fc.constant('cut'), at: place }),
) as fc.Arbitrary<ByteChange>; // constantFrom knows the names, the record does not keep them

/** One to four changes to bytes. */
export const byteChanges: fc.Arbitrary<readonly ByteChange[]> = fc.array(byteChange, { minLength: 1, maxLength: 4 });

function change(bytes: Buffer, asked: ByteChange): Buffer {
  const at = Math.min(Math.floor(asked.at * bytes.length), Math.max(bytes.length - 1, 0));
  const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
  switch (asked.what) {
    case 'flip':
      return Buffer.concat([before, Buffer.from(after.subarray(0, 1)).map((byte) => byte ^ (1 << asked.bit)), after.subarray(1)]);
    case 'set':
      return Buffer.concat([before, asked.bytes, after.subarray(asked.bytes.length)]);
    case 'insert':
      return Buffer.concat([before, asked.bytes, after]);
    case 'remove':
      return Buffer.concat([before, after.subarray(asked.length)]);
    case 'repeat':
      return Buffer.concat([before, after.subarray(0, asked.length), after]);
    case 'move':
      return Buffer.concat([before, after.subarray(asked.length), after.subarray(0, asked.length)]);
    case 'cut':
      return before;
  }
}

/** Makes changes one after the other. The bytes that are given stay as they are. */
export function changeBytes(bytes: Uint8Array, changes: readonly ByteChange[]): Buffer {
  return changes.reduce<Buffer>(change, Buffer.from(bytes));
}

/** Makes changes to a text; what is no UTF-8 any more becomes the replacement character. */
export const changeText = (text: string, changes: readonly ByteChange[]): string => changeBytes(Buffer.from(text), changes).toString();

/** One change to a JSON value: at one of its nodes, by number. */
export interface JsonChange {
  readonly what: 'replace' | 'remove' | 'add' | 'repeat' | 'wrap' | 'text';
  readonly node: number;
  readonly name: string;
  readonly value: fc.JsonValue;
  readonly changes: readonly ByteChange[];
}

/** Values at which things go wrong. */
const awkward = fc.constantFrom<fc.JsonValue>(
  null,
  true,
  false,
  0,
  -1,
  1.5,
  1e308,
  2 ** 53,
  '',
  ' ',
  '\0',
  '\ud800',
  'constructor',
  [],
  {},
  [[]],
  '=',
  'AA==',
  '%',
);
/** Names that an object may not take for its own. */
const awkwardNames = fc.constantFrom('__proto__', 'constructor', 'toString', 'keyId', 'then', '', 'x');

/** Up to three changes to a JSON value. */
export const jsonChanges: fc.Arbitrary<readonly JsonChange[]> = fc.array(
  fc.record({
    what: fc.constantFrom('replace', 'remove', 'add', 'repeat', 'wrap', 'text'),
    node: fc.nat(),
    name: fc.oneof(awkwardNames, fc.string({ maxLength: 8 })),
    value: fc.oneof(awkward, fc.jsonValue({ maxDepth: 3 })),
    changes: byteChanges,
  }),
  { maxLength: 3 },
);

interface Node {
  readonly value: unknown;
  readonly parent: object | undefined;
  readonly name: string;
}

function* nodesOf(value: unknown, parent?: object, name = ''): Generator<Node> {
  yield { value, parent, name };
  if (typeof value !== 'object' || value === null) return;
  for (const [key, child] of Object.entries(value)) yield* nodesOf(child, value, key);
}

/** As JSON.parse does it: also a name such as `__proto__` is one of the object's own. */
const put = (target: object, name: string, value: unknown): void =>
  void Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true });

function add(target: unknown, name: string, value: unknown): void {
  if (Array.isArray(target)) target.push(value);
  else if (typeof target === 'object' && target !== null) put(target, name, value);
}

const copyOf = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

/** Objects and arrays of `root` are changed where they are. @returns the root, which a change may have replaced. */
function changeNode(root: unknown, { what, node, name, value: shared, changes }: JsonChange): unknown {
  const value = copyOf(shared); // one of the constants, perhaps, that other changes get as well
  const nodes = [...nodesOf(root)];
  const chosen = nodes[node % nodes.length];
  if (!chosen) return root;
  const { parent } = chosen;
  const replaceBy = (next: unknown): unknown => {
    if (!parent) return next;
    put(parent, chosen.name, next);
    return root;
  };
  if (what === 'add') add(chosen.value, name, value);
  if (what === 'remove' && parent && !Array.isArray(parent)) Reflect.deleteProperty(parent, chosen.name);
  if (what === 'repeat' && Array.isArray(chosen.value))
    for (let times = 0; times < 8; times += 1) chosen.value.push(...(copyOf(chosen.value.slice(0, 64)) as unknown[]));
  if (what === 'replace') return replaceBy(value);
  if (what === 'wrap') return replaceBy([chosen.value]);
  if (what === 'text' && typeof chosen.value === 'string') return replaceBy(changeText(chosen.value, changes));
  return root;
}

/** Makes changes one after the other, to a copy. */
export function changeJson(value: unknown, changes: readonly JsonChange[]): unknown {
  return changes.reduce<unknown>(changeNode, copyOf(value));
}
