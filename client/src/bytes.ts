/** UTF-8 bytes of a text. @throws TypeError for unpaired surrogates, which have no UTF-8. */
export function utf8(value: string): Uint8Array<ArrayBuffer> {
  if (!value.isWellFormed()) throw new TypeError('the text has unpaired surrogates');
  return new TextEncoder().encode(value);
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of UTF-8 bytes. @throws TypeError when they are not valid UTF-8. */
export function text(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/**
 * Authenticated data that says what a ciphertext belongs to: the JSON of the entries, sorted by name.
 * @example await kms.advanceEncrypt({ plaintext, aad: aad({ table: 'users', id: '7' }) })
 */
export function aad(entries: Readonly<Record<string, string>>): Uint8Array<ArrayBuffer> {
  const names = Object.keys(entries).sort();
  return utf8(JSON.stringify(Object.fromEntries(names.map((name) => [name, entries[name]]))));
}
