import { generateKeyPair } from 'node:crypto';
import type { GeneratedMaterial } from '../provider.ts';

/** Specs of pairs that this provider generates. */
export type AsymmetricSpec = 'RSA_2048' | 'RSA_3072' | 'EC_P256' | 'EC_P256K';

type Pair = GeneratedMaterial & { readonly publicKey: Uint8Array };

const encoding = { publicKeyEncoding: { type: 'spki', format: 'der' }, privateKeyEncoding: { type: 'pkcs8', format: 'der' } } as const;

type Done = (error: Error | null, publicKey: Uint8Array, privateKey: Uint8Array) => void;

/** Runs on the thread pool. */
function generate(start: (done: Done) => void): Promise<Pair> {
  const { promise, resolve, reject } = Promise.withResolvers<Pair>();
  start((error, publicKey, privateKey) => (error ? reject(error) : resolve({ material: privateKey, publicKey })));
  return promise;
}

/** An RSA pair with public exponent 65537. */
export function generateRsaPair(modulusLength: number): Promise<Pair> {
  return generate((done) => generateKeyPair('rsa', { modulusLength, ...encoding }, done));
}

/** A pair of a spec; named curves of SEC 2. */
export function generatePair(keySpec: AsymmetricSpec): Promise<Pair> {
  if (keySpec === 'RSA_2048' || keySpec === 'RSA_3072') return generateRsaPair(Number(keySpec.slice('RSA_'.length)));
  return generate((done) => generateKeyPair('ec', { namedCurve: keySpec === 'EC_P256' ? 'prime256v1' : 'secp256k1', ...encoding }, done));
}
