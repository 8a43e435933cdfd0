import { ia5String, objectId, printableString, sequence, setOf, utf8String } from './der.ts';

interface AttributeType {
  readonly oid: string;
  /** Upper bound in characters (RFC 5280, appendix A.1). */
  readonly maxLength: number;
  readonly form: RegExp;
  readonly encode: (value: string) => Buffer;
}

const directoryText = (oid: string, maxLength: number): AttributeType => ({ oid, maxLength, form: /^[^\p{Cc}]+$/u, encode: utf8String });

const attributeTypes: ReadonlyMap<string, AttributeType> = new Map([
  ['CN', directoryText('2.5.4.3', 64)],
  ['O', directoryText('2.5.4.10', 64)],
  ['OU', directoryText('2.5.4.11', 64)],
  ['L', directoryText('2.5.4.7', 128)],
  ['ST', directoryText('2.5.4.8', 128)],
  ['STREET', directoryText('2.5.4.9', 128)],
  ['C', { oid: '2.5.4.6', maxLength: 2, form: /^[A-Z]{2}$/, encode: printableString }],
  ['SERIALNUMBER', { oid: '2.5.4.5', maxLength: 64, form: /^[A-Za-z0-9 '()+,./:=?-]+$/, encode: printableString }],
  ['DC', { oid: '0.9.2342.19200300.100.1.25', maxLength: 63, form: /^[\x21-\x7e]+$/, encode: ia5String }],
  ['EMAILADDRESS', { oid: '1.2.840.113549.1.9.1', maxLength: 255, form: /^[\x21-\x7e]+@[\x21-\x7e]+$/, encode: ia5String }],
]);

/** A value as RFC 4514 section 3 writes it, with its escapes undone. */
function unescapeValue(text: string): string {
  const bytes = Buffer.concat(
    [...text.matchAll(/\\([0-9A-Fa-f]{2})|\\([ "#+,;<=>\\])|([^\\])/gsu)].map(([, hex, special, plain]) =>
      hex === undefined ? Buffer.from(special ?? plain ?? '') : Buffer.from(hex, 'hex'),
    ),
  );
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}

function encodeAttribute(text: string): Buffer {
  const [, name = '', raw = ''] = /^\s*([A-Za-z]+)\s*=\s*((?:[^\\"+;<>]|\\[0-9A-Fa-f]{2}|\\[ "#+,;<=>\\])*?)\s*$/su.exec(text) ?? [];
  const type = attributeTypes.get(name.toUpperCase());
  if (!type) throw new TypeError(`${text} in the subject is not NAME=value; the names are ${[...attributeTypes.keys()].join(', ')}`);
  const value = unescapeValue(raw);
  if (value.length > type.maxLength || !type.form.test(value)) throw new TypeError(`${value || 'nothing'} is no value for ${name}`);
  return setOf(sequence(objectId(type.oid), type.encode(value)));
}

/** Cuts at the commas that are not escaped. */
function splitParts(text: string): string[] {
  const parts = [''];
  for (const [piece] of text.matchAll(/\\?./gsu)) {
    if (piece === ',') parts.push('');
    else parts.push((parts.pop() ?? '') + piece);
  }
  return parts;
}

/**
 * Encodes a distinguished name written as RFC 4514 has it: `CN=shop,O=Example\, Inc.,C=DE`. As there, the most special part comes first,
 * and last in the encoding. Each part has one attribute.
 *
 * @throws TypeError for what is no such name.
 */
export function encodeSubject(text: string): Buffer {
  const parts = text.trim() === '' ? [] : splitParts(text);
  return sequence(...parts.map(encodeAttribute).reverse());
}
