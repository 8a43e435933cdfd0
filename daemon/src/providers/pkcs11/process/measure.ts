import { CKA_VALUE_LEN } from './cryptoki.ts';
import type { Handle } from './pkcs11js.ts';
import type { Session } from './session.ts';

/** Bytes that RFC 3394 adds to what it wraps. */
const wrapOverhead = 8;

/**
 * The length of an AES key in bytes. Where CKA_VALUE_LEN does not say it of an unwrapped key (SoftHSM: 0), the key is wrapped under
 * one that never leaves the token: how long that gets tells, and nothing else.
 * @param key - a session copy that may be wrapped.
 */
export async function measureAes(session: Session, key: Handle, makeWrappingKey: () => Promise<Handle>, mechanism: number): Promise<number> {
  const [said = Buffer.alloc(8)] = session.attributes(key, CKA_VALUE_LEN);
  const length = said.length === 8 ? Number(said.readBigUInt64LE()) : said.readUInt32LE();
  if (length > 0) return length;
  const wrappingKey = await makeWrappingKey();
  const wrapped = session.wrap({ mechanism }, wrappingKey, key);
  session.destroy(wrappingKey);
  return wrapped.length - wrapOverhead;
}
