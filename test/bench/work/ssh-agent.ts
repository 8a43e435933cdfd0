import { randomBytes, verify } from 'node:crypto';
import { ecdsaSignature } from './ecdsa.ts';
import { OrderedStream } from './stream.ts';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

const signRequest = 13;
const signResponse = 14;
/** SSH_AGENT_RSA_SHA2_256. */
const rsaSha256 = 2;

const number32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const string = (bytes: Uint8Array): Buffer => Buffer.concat([number32(bytes.length), bytes]);

/** The first string of bytes that begin with one, and what follows it (RFC 4251 section 5). */
function readString(bytes: Buffer): [Buffer, Buffer] {
  const end = 4 + bytes.readUInt32BE(0);
  return [bytes.subarray(4, end), bytes.subarray(end)];
}

/** OpenSSH's agent, by its own protocol (draft-miller-ssh-agent); it answers the requests of a connection in their order. */
export async function openSshAgent({ socketPath, publicKey, keyType }: Extract<WorkSpec, { kind: 'ssh-agent' }>): Promise<Session> {
  const stream = await OrderedStream.open(socketPath, (bytes) =>
    bytes.length < 4 || bytes.length < 4 + bytes.readUInt32BE(0) ? 0 : 4 + bytes.readUInt32BE(0),
  );
  const message = randomBytes(1024);
  const blob = Buffer.from(publicKey, 'base64');
  const flags = keyType === 'ssh-rsa' ? rsaSha256 : 0;
  const request = string(Buffer.concat([Buffer.from([signRequest]), string(blob), string(message), number32(flags)]));
  const check = (answer: Buffer): boolean => (keyType === 'ssh-rsa' ? isRsaRight(blob, message, answer) : isEcdsaRight(blob, message, answer));
  return {
    call: async (isSample) => {
      const answer = (await stream.ask(request)).subarray(4);
      if (answer[0] !== signResponse || (isSample && !check(readString(answer.subarray(1))[0]))) throw new WrongAnswer('ssh-agent');
    },
    close: () => stream.close(),
  };
}

function isEcdsaRight(blob: Buffer, message: Buffer, answer: Buffer): boolean {
  const [, afterType] = readString(blob);
  const [, afterCurve] = readString(afterType);
  const [point] = readString(afterCurve);
  const [, signature] = readString(answer);
  const [r, rest] = readString(readString(signature)[0]);
  const [s] = readString(rest);
  return ecdsaSignature(point, r, s).isValid(message);
}

function isRsaRight(blob: Buffer, message: Buffer, answer: Buffer): boolean {
  const [, afterType] = readString(blob);
  const [e, afterE] = readString(afterType);
  const [n] = readString(afterE);
  const [, rest] = readString(answer);
  const key = { kty: 'RSA', n: n.toString('base64url'), e: e.toString('base64url') };
  return verify('sha256', message, { key, format: 'jwk' }, readString(rest)[0]);
}
