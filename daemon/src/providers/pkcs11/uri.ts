import type { TokenInfo, TokenMatch } from './messages.ts';

const known = ['token', 'serial', 'manufacturer', 'model'] as const;

function decode(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch (cause) {
    throw new TypeError(`${value} has a % that stands for no character`, { cause });
  }
}

/**
 * Reads a PKCS#11 URI (RFC 7512) that chooses a token: `pkcs11:token=Signing;serial=0123`. Never by slot: its number changes.
 * @throws TypeError that says what is wrong with it; a URI with a PIN is refused, because settings hold none.
 */
export function parseTokenUri(uri: string): TokenMatch {
  const [, path = '', query] = /^pkcs11:([^?]*)(?:\?(.*))?$/.exec(uri) ?? [];
  if (path === '') throw new TypeError('a PKCS#11 URI looks like pkcs11:token=LABEL;serial=NUMBER');
  if (query !== undefined) throw new TypeError('a query, such as pin-value or module-path, does not belong into the URI of a token');
  const match: { [K in (typeof known)[number]]?: string } = {};
  for (const part of path.split(';')) {
    const [, name = '', value = ''] = /^([a-z-]+)=(.*)$/.exec(part) ?? [];
    const attribute = known.find((candidate) => candidate === name);
    if (!attribute) throw new TypeError(`a token is chosen by ${known.join(', ')}, not by ${name || part}`);
    if (match[attribute] !== undefined) throw new TypeError(`${attribute} stands twice in the URI`);
    match[attribute] = decode(value);
  }
  if (match.token === undefined && match.serial === undefined)
    throw new TypeError('the URI of a token names its label (token=) or its serial number (serial=)');
  return match;
}

/** Whether a token is the one that a URI chooses. */
export const fits = (info: TokenInfo, { token, serial, manufacturer, model }: TokenMatch): boolean =>
  (token ?? info.label) === info.label &&
  (serial ?? info.serial) === info.serial &&
  (manufacturer ?? info.manufacturer) === info.manufacturer &&
  (model ?? info.model) === info.model;

/** Characters that RFC 7512 section 2.3 lets stand in a value. */
const plain = /[^A-Za-z0-9\-._~:[\]@!$'()*+,=&]/gu;

/** The URI that chooses a token, and no other of its maker. */
export function formatTokenUri({ label, serial }: { label: string; serial: string }): string {
  const encode = (text: string): string => text.replace(plain, (character) => encodeURIComponent(character));
  return `pkcs11:token=${encode(label)};serial=${encode(serial)}`;
}
