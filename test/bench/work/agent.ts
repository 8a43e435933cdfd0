import { constants, randomBytes, verify } from 'node:crypto';
import { type AgentClient, connect } from '@kms-agent/client';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

type Spec = Extract<WorkSpec, { kind: 'agent' }>;

function judge(isRight: boolean): void {
  if (!isRight) throw new WrongAnswer('kms-agent');
}

/** kms-agent, through its client library. */
export async function openAgent({ socketPath, operation, keyId, bytes }: Spec): Promise<Session> {
  const kms = await connect({ socketPath, retry: false });
  const message = randomBytes(bytes);
  const { ciphertextBlob = new Uint8Array() } = operation === 'advanceDecrypt' ? await kms.advanceEncrypt({ keyId, plaintext: message }) : {};
  const calls: Record<Spec['operation'], (check: boolean) => Promise<void>> = {
    sign: async (check) => {
      const { signature, algorithm } = await kms.sign({ keyId, message });
      if (check) await checkSignature(kms, { keyId, message, algorithm, signature });
    },
    advanceEncrypt: async (check) => {
      const sealed = await kms.advanceEncrypt({ keyId, plaintext: message });
      if (check) await checkCiphertext(kms, message, sealed.ciphertextBlob);
    },
    advanceDecrypt: async () => judge(message.equals((await kms.advanceDecrypt({ ciphertextBlob })).plaintext)),
    describeKey: async () => judge((await kms.describeKey({ keyId })).keyState === 'Enabled'),
    whoAmI: async () => judge((await kms.whoAmI()).uid === process.getuid?.()),
  };
  return { call: calls[operation], close: () => kms.close() };
}

/** @throws WrongAnswer for a signature that node:crypto does not verify. */
export async function checkSignature(
  kms: AgentClient,
  { keyId, message, algorithm, signature }: { keyId: string; message: Buffer; algorithm: string; signature: Uint8Array },
): Promise<void> {
  judge(verifyHere(await publicKeyOf(kms, keyId), algorithm, message, signature));
}

/** @throws WrongAnswer for a ciphertext that shows its plaintext, or opens to something else. */
export async function checkCiphertext(kms: AgentClient, message: Buffer, ciphertextBlob: Uint8Array): Promise<void> {
  judge(!Buffer.from(ciphertextBlob).includes(message.subarray(0, 16)));
  judge(message.equals((await kms.advanceDecrypt({ ciphertextBlob })).plaintext));
}

const publicKeys = new Map<string, string>();

async function publicKeyOf(kms: AgentClient, keyId: string): Promise<string> {
  const known = publicKeys.get(keyId) ?? (await kms.getPublicKey({ keyId })).publicKey;
  publicKeys.set(keyId, known);
  return known;
}

function verifyHere(key: string, algorithm: string, message: Buffer, signature: Uint8Array): boolean {
  const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  return verify('sha256', message, { key, ...(algorithm.startsWith('RSA_PSS') ? pss : {}) }, signature);
}
