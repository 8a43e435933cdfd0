import { createCipheriv, generateKeyPairSync, randomBytes, sign, verify } from 'node:crypto';
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

function encrypting(message: Buffer): () => undefined {
  const key = randomBytes(32);
  return () => {
    const cipher = createCipheriv('aes-256-gcm', key, randomBytes(12), { authTagLength: 16 });
    cipher.update(message);
    cipher.final();
    cipher.getAuthTag();
  };
}
