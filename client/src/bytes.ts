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
 * Authenticated data that says what a ciphertext belongs to: the JSON of the entries, sorted by name in the order of UTF-16 code units.
 * @throws TypeError for a value that is no text: an unset variable must not make all ciphertexts belong together.
 * @example await kms.advanceEncrypt({ plaintext, aad: aad({ table: 'users', id: '7' }) })
 */
export function aad(entries: Readonly<Record<string, string>>): Uint8Array<ArrayBuffer> {
  const members = Object.entries(entries).map(([name, value]: [string, unknown]) => {
    if (typeof value !== 'string') throw new TypeError(`aad: ${name} is ${typeof value}, not text`);
    return { name, text: `${JSON.stringify(name)}:${JSON.stringify(value)}` };
  });
  members.sort((a, b) => (a.name < b.name ? -1 : 1)); // by hand: an object would put names that are numbers first
  return utf8(`{${members.map((member) => member.text).join(',')}}`);
}
