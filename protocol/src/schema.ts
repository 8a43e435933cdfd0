import { Buffer, isUtf8 } from 'node:buffer';
import { z } from 'zod';
import { type KeySpec, keySpecs } from './names.ts';

/** True only when A and B are the same type, optionality and readonly included. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Flat<T> = T extends Uint8Array ? T : T extends object ? { [K in keyof T]: Flat<T[K]> } : T;

/**
 * Ties a schema to a documented interface: compiles only if the schema's output is exactly `T`.
 * `satisfies z.ZodType<T>` would let a schema drift to a subtype.
 */
export function schemaOf<T>() {
  return <S extends z.ZodType>(schema: Same<Flat<z.output<S>>, Flat<T>> extends true ? S : never): z.ZodType<T> => schema as unknown as z.ZodType<T>; // the condition proved it
}

/**
 * Reads standard base64 with padding (RFC 4648 section 4) into memory of its own.
 * @returns undefined when the text is not canonical: encoding the bytes again must give the same text.
 */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (text.length % 4 !== 0) return undefined;
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const bytes = Buffer.allocUnsafeSlow((text.length / 4) * 3 - padding); // never from the pool that other requests share
  if (bytes.write(text, 'base64') !== bytes.length || bytes.toString('base64') !== text) return undefined;
  return new Uint8Array(bytes.buffer, 0, bytes.length);
}

/** Writes standard base64 with padding. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}

interface Range {
  readonly min?: number;
  readonly max?: number;
}

function describeRange({ min = 0, max }: Range, unit: string): string {
  if (max === undefined) return `at least ${min} ${unit}`;
  return min === max ? `exactly ${min} ${unit}` : `${min} to ${max} ${unit}`;
}

function makeBytes<B extends Uint8Array>(range: Range) {
  const { min = 0, max = Number.POSITIVE_INFINITY } = range;
  const wire = z.string().meta({ contentEncoding: 'base64', description: `Base64 of ${describeRange(range, 'bytes')}.` });
  return z.codec(
    wire,
    z.custom<B>((value) => value instanceof Uint8Array, 'must be a Uint8Array'),
    {
      decode: (text, context) => {
        const bytes = decodeBase64(text);
        if (bytes && bytes.length >= min && bytes.length <= max) return bytes as unknown as B; // B is Uint8Array or the narrower Uint8Array<ArrayBuffer>
        const message = bytes ? `must be ${describeRange(range, 'bytes')}` : 'must be canonical base64 with padding';
        context.issues.push({ code: 'custom', input: undefined, message });
        return z.NEVER;
      },
      // zod calls this for an absent field too when its object has a refinement, and drops the answer
      encode: (bytes: B | undefined) => (bytes === undefined ? '' : encodeBase64(bytes)),
    },
  );
}

/** Bytes in parameters: canonical base64 on the wire; `min` and `max` count bytes. */
export const bytes = (range: Range = {}) => makeBytes<Uint8Array>(range);

/** Bytes in results: as `bytes`, and each value owns its buffer. */
export const ownBytes = (range: Range = {}) => makeBytes<Uint8Array<ArrayBuffer>>(range);

/** Text whose length is counted in bytes of UTF-8; unpaired surrogates are refused, they have no UTF-8. */
export function text({ min = 0, max }: { min?: number; max: number }) {
  const fits = (value: string): boolean => {
    const length = Buffer.byteLength(value);
    return length >= min && length <= max && value.isWellFormed();
  };
  return z
    .string()
    .refine(fits, `must be ${describeRange({ min, max }, 'bytes of UTF-8')}`)
    .meta({ maxLength: max });
}

/** A secret text. As bytes of UTF-8 whoever gives it can overwrite it; a string nobody can. */
export type SecretText = string | Uint8Array;

/** A secret text; always a string on the wire. An agent that took it out of the frame before that became text has bytes. */
export function secretText({ min, max }: { min: number; max: number }) {
  const fits = (value: unknown): boolean => {
    if (typeof value !== 'string' && !(value instanceof Uint8Array && isUtf8(value))) return false;
    const length = Buffer.byteLength(value);
    return length >= min && length <= max && (typeof value !== 'string' || value.isWellFormed());
  };
  const wire = z
    .unknown()
    .refine(fits, `must be ${describeRange({ min, max }, 'bytes of UTF-8')}`)
    .meta({ type: 'string', maxLength: max });
  return z.codec(wire, z.custom<SecretText>(fits, `must be ${describeRange({ min, max }, 'bytes of UTF-8')}`), {
    decode: (value) => value as SecretText, // it fits
    encode: (secret: SecretText | undefined) => (secret instanceof Uint8Array ? Buffer.from(secret).toString() : secret),
  });
}

/**
 * An enumeration in a result. Results are open: a value that a later version adds passes through, so the schema is any text
 * although the type names today's values.
 */
export function openEnum<const T extends string>(values: readonly T[]) {
  return z.string().meta({ examples: [...values] }) as unknown as z.ZodType<T, string>; // see above
}

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const aliasPattern = /^alias\/[A-Za-z0-9/_-]{1,250}$/;

/** A UUID in lower case (RFC 9562 section 4). */
export const uuid = () => z.string().regex(uuidPattern, 'must be a UUID in lower case');

/** `alias/` and 1 to 250 of A-Z a-z 0-9 / _ -. */
export const aliasName = () => z.string().regex(aliasPattern, 'must be alias/ and 1 to 250 of A-Z a-z 0-9 / _ -');

/** A key id, or an alias that names a key. */
export const keyReference = () =>
  z
    .string()
    .refine((value) => uuidPattern.test(value) || aliasPattern.test(value), 'must be a key id or alias/<name>')
    .meta({ pattern: `${uuidPattern.source}|${aliasPattern.source}` });

/** RFC 3339 in UTC with milliseconds, as `Date.prototype.toISOString` writes it. */
export const timestamp = () => z.string();

const isTime = (value: string): boolean => {
  const time = Date.parse(value);
  return !Number.isNaN(time) && new Date(time).toISOString() === value;
};

/** A timestamp as a parameter: exactly the form that answers have. */
export const timestampParam = () => z.string().refine(isTime, 'must be a time such as 2030-01-31T12:00:00.000Z');

const unitSeconds = { d: 86_400, h: 3_600, m: 60, s: 1 } as const;

/** Seconds of a duration `<int>` + `d`, `h`, `m` or `s`; NaN if the text is none. */
export function durationSeconds(value: string): number {
  const match = /^([1-9][0-9]{0,9})([dhms])$/.exec(value);
  if (!match) return Number.NaN;
  return Number(match[1]) * unitSeconds[match[2] as keyof typeof unitSeconds]; // the pattern admits only these letters
}

/** The shortest text of a whole number of seconds: `30d`, `12h`, `90s`. */
export function formatDuration(seconds: number): string {
  const unit = (['d', 'h', 'm'] as const).find((name) => seconds % unitSeconds[name] === 0) ?? 's';
  return `${seconds / unitSeconds[unit]}${unit}`;
}

/** A duration between two others, bounds included. */
export function duration(min: string, max: string) {
  const inRange = (value: string): boolean => durationSeconds(value) >= durationSeconds(min) && durationSeconds(value) <= durationSeconds(max);
  return z
    .string()
    .refine(inRange, `must be a duration such as 12h or 30d, from ${min} to ${max}`)
    .meta({ examples: [min, max] });
}

const foreignSpecs = ['Aliyun_AES_256', 'Aliyun_AES_192', 'Aliyun_AES_128'] as const;

/** A key spec as a parameter: `Aliyun_AES_256` and its kin mean `AES_256` and its kin, and are never answered. */
export const keySpecParam = () => {
  const wire = z.enum([...keySpecs, ...foreignSpecs]);
  return z.codec(
    wire,
    z.custom<KeySpec>((value) => wire.safeParse(value).success),
    {
      decode: (name) => name.replace(/^Aliyun_/, '') as KeySpec, // each foreign name is one of ours behind this prefix
      encode: (spec) => spec,
    },
  );
};

const wellFormed = 'must not have unpaired surrogates, which have no UTF-8';

/**
 * The name of a tag: 1 to 128 characters that stand in JSON as they are. A name of a member that JSON escapes is not safe:
 * JSON.parse of V8 13.6 (Node 24) takes `{"a":1,"b\"":1}` for `{"a":1,"b\\":1}` after it has seen the latter
 * (nodejs/node issue 63785). What it mixes up ends up with a backslash, which is no name.
 */
export const tagName = () =>
  z
    .string()
    .min(1)
    .max(128)
    .refine((name) => name.isWellFormed(), wellFormed)
    .refine((name) => !/["\\\p{Cc}]/u.test(name), 'must not have quotes, backslashes or control characters');

const tagValue = () =>
  z
    .string()
    .max(256)
    .refine((value) => value.isWellFormed(), wellFormed);

/** Tags: at most 50, names 1 to 128 and values at most 256 characters. */
export const tags = () => {
  const named = (value: unknown): boolean => typeof value !== 'object' || value === null || !Object.hasOwn(value, '__proto__');
  const unread = z.unknown().refine(named, '__proto__ cannot be the name of a tag') as unknown as z.ZodType<Record<string, string>, Record<string, string>>; // read by what follows
  return unread
    .pipe(z.record(tagName(), tagValue()).refine((value) => Object.keys(value).length <= 50, 'must be at most 50 tags'))
    .pipe(unread) // a client begins at this end, and a record would lose the name
    .meta({ type: 'object', additionalProperties: { type: 'string', maxLength: 256 }, maxProperties: 50 });
};
