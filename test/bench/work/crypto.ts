import { createCipheriv, createDecipheriv, createSecretKey, generateKeyPairSync, randomBytes, randomFillSync, sign, verify } from 'node:crypto';
import { promisify } from 'node:util';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

const signAside = promisify(sign);

/** node:crypto in this process: what a program has that keeps its keys itself. With threads, on its pool, so on all cores. */
export function openCrypto({ operation, bytes, threads }: Extract<WorkSpec, { kind: 'crypto' }>): Session {
  const message = randomBytes(bytes);
  if (operation === 'encrypt AES_256') return { call: encrypting(message), close: () => undefined };
  const pair = operation === 'sign EC_P256' ? generateKeyPairSync('ec', { namedCurve: 'prime256v1' }) : generateKeyPairSync('rsa', { modulusLength: 2048 });
  const judge = (check: boolean, signature: Buffer): undefined => {
    if (check && !verify('sha256', message, pair.publicKey, signature)) throw new WrongAnswer('node:crypto');
  };
  return {
    call: threads
      ? async (check) => judge(check, await signAside('sha256', message, pair.privateKey))
      : (check) => judge(check, sign('sha256', message, pair.privateKey)),
    close: () => undefined,
  };
}

const [ivBytes, ivs] = [12, 512];

/** As fast as it goes: with a key object, and with random IVs that are made many at a time. */
function encrypting(message: Buffer): (check: boolean) => undefined {
  const key = createSecretKey(randomBytes(32));
  const pool = Buffer.alloc(ivBytes * ivs);
  let next = pool.length;
  return (check) => {
    if (next === pool.length) {
      randomFillSync(pool);
      next = 0;
    }
    const iv = pool.subarray(next, next + ivBytes);
    next += ivBytes;
    const cipher = createCipheriv('aes-256-gcm', key, iv, { authTagLength: 16 });
    const ciphertext = cipher.update(message);
    cipher.final();
    const tag = cipher.getAuthTag();
    if (!check) return;
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: 16 }).setAuthTag(tag);
    if (!Buffer.concat([decipher.update(ciphertext), decipher.final()]).equals(message)) throw new WrongAnswer('node:crypto');
  };
}
