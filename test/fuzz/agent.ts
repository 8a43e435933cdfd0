import { readFileSync } from 'node:fs';
import { type AgentClient, utf8 } from '@kms-agent/client';
import { decodeResult, errors, isMethodName, methodNames } from '@kms-agent/protocol';
import { TestAgent } from '../kit/agent.ts';
import { importMaterial } from '../kit/material.ts';
import { Wire, type WireResponse } from '../kit/wire.ts';
import type { Pools } from './schema.ts';
import { must } from './target.ts';

/** Runs after which a fresh agent is taken, so that what runs leave behind does not grow into what is measured. */
const runsOfAgent = 250;
/** Milliseconds within which every request is answered. */
const patienceMs = 25_000;
/** MiB that an agent may take whatever it is sent. */
const mostMiB = 640;

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

/** Something that an agent made, with what is needed to open or verify it again; bytes as base64. */
export interface Sample {
  readonly method: 'advanceDecrypt' | 'decrypt' | 'verify';
  readonly params: Readonly<Record<string, string>>;
  /** The field of params that holds what was made. */
  readonly made: 'ciphertextBlob' | 'signature';
}

async function makeSamples(kms: AgentClient, keys: { aes: string; ec: string; rsaSign: string; rsa: string }): Promise<Sample[]> {
  const [plaintext, aad] = [utf8('sixteen bytes or'), utf8('context')];
  const sealed = await kms.advanceEncrypt({ keyId: keys.aes, plaintext, aad });
  const raw = await kms.encrypt({ keyId: keys.aes, plaintext, aad });
  const oaep = await kms.encrypt({ keyId: keys.rsa, plaintext });
  const signed = await Promise.all([
    kms.sign({ keyId: keys.ec, message: plaintext }),
    kms.sign({ keyId: keys.ec, message: plaintext, signatureFormat: 'P1363' }),
    kms.sign({ keyId: keys.rsaSign, message: plaintext }),
  ]);
  return [
    { method: 'advanceDecrypt', made: 'ciphertextBlob', params: { ciphertextBlob: base64(sealed.ciphertextBlob), aad: base64(aad) } },
    {
      method: 'decrypt',
      made: 'ciphertextBlob',
      params: { keyId: keys.aes, ciphertextBlob: base64(raw.ciphertextBlob), aad: base64(aad), iv: base64(raw.iv ?? new Uint8Array()) },
    },
    { method: 'decrypt', made: 'ciphertextBlob', params: { keyId: keys.rsa, ciphertextBlob: base64(oaep.ciphertextBlob) } },
    ...signed.map(
      ({ keyId, signature, signatureFormat }): Sample => ({
        method: 'verify',
        made: 'signature',
        params: { keyId, signature: base64(signature), message: base64(plaintext), ...(signatureFormat ? { signatureFormat } : {}) },
      }),
    ),
  ];
}

/** Keys of every kind and in every state, and what was made with them. */
async function furnish(kms: AgentClient): Promise<{ pools: Pools; samples: Sample[] }> {
  const make = async (params: Parameters<AgentClient['createKey']>[0]): Promise<string> => (await kms.createKey(params)).keyId;
  const aes = await make({ aliasName: 'alias/aes' });
  const ec = await make({ keySpec: 'EC_P256', aliasName: 'alias/ec' });
  const rsa = await make({ keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT', aliasName: 'alias/rsa' });
  const rsaSign = await make({ keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' });
  const imported = await make({ origin: 'EXTERNAL', aliasName: 'alias/default' });
  await importMaterial(kms, imported, new Uint8Array(32).fill(7));
  const { importToken } = await kms.getParametersForImport({ keyId: imported, wrappingKeySpec: 'RSA_2048' });
  const { keyVersionId } = await kms.createKeyVersion({ keyId: aes });
  const [disabled, doomed] = [await make({}), await make({})];
  await kms.disableKey({ keyId: disabled });
  await kms.scheduleKeyDeletion({ keyId: doomed });
  const bound = await make({ policy: { statements: [{ effect: 'Allow', principals: ['*'], actions: ['use'], bindAad: ['user'] }] } });
  const samples = await makeSamples(kms, { aes, ec, rsa, rsaSign });
  const { nextToken = '' } = await kms.listKeys({ limit: 1 });
  const ofSamples = (field: string): string[] => samples.map(({ params }) => params[field]).filter((value) => value !== undefined);
  const ids = [aes, ec, rsa, rsaSign, imported, disabled, doomed, bound];
  const names = ['alias/aes', 'alias/ec', 'alias/rsa', 'alias/default', 'alias/none', 'alias/service/x'];
  const pools = {
    keyId: [...ids, ...names, '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f'],
    destinationKeyId: [...ids, ...names],
    keyVersionId: [keyVersionId, (await kms.describeKey({ keyId: ec })).primaryKeyVersionId, '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f'],
    aliasName: [...names, 'alias/new'],
    ciphertextBlob: ofSamples('ciphertextBlob'),
    signature: ofSamples('signature'),
    message: [...ofSamples('message'), base64(new Uint8Array(32))],
    iv: [...ofSamples('iv'), base64(new Uint8Array(12)), base64(new Uint8Array(16))],
    aad: [...ofSamples('aad'), base64(utf8('kms')), base64(utf8('other'))],
    importToken: [base64(importToken)],
    encryptedKeyMaterial: [base64(new Uint8Array(256).fill(1))],
    nextToken: [nextToken],
    method: [...methodNames, 'nope'],
    actions: ['use', 'view', 'manage', ...methodNames, '*'],
    principals: [
      '*',
      'uid:0',
      'user:root',
      'gid:0',
      'group:root',
      'unit:a.service',
      'user-unit:a.service',
      'exe:/bin/sh',
      'exe:sh',
      'uid:-1',
      'x:y',
      { uid: '0', unit: 'a.service' },
    ],
    rotationInterval: ['7d', '30d', '730d', '731d', '0d'],
    unlockLifetime: ['1s', '1h', '365d'],
    materialExpireTime: ['2040-01-01T00:00:00.000Z', '1990-01-01T00:00:00.000Z', '2040-02-30T00:00:00.000Z'],
    token: ['hsm', 'software'],
  };
  return { pools, samples };
}

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** What was sent did not get what the protocol promises in time. */
export async function inTime<T>(work: Promise<T>, what: string): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what} within ${patienceMs} ms`)), patienceMs);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** A real agent with something of everything, that is replaced when it has had enough. */
export class FuzzAgent implements AsyncDisposable {
  #agent: TestAgent | undefined;
  #runs = 0;
  #broken = false;
  pools: Pools = {};
  samples: Sample[] = [];

  get socketPath(): string {
    return this.#agent?.socketPath ?? '';
  }

  /** Runs something against an agent that is well, and looks afterwards whether it still is. */
  async run(work: () => Promise<void>): Promise<void> {
    await this.#provide();
    this.#runs += 1;
    this.#broken = true; // until the end is reached
    await work();
    await this.#check();
    this.#broken = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent?.end(this.#broken ? 'SIGKILL' : 'SIGTERM');
    this.#agent = undefined;
  }

  async #provide(): Promise<void> {
    if (this.#agent && !this.#broken && this.#runs < runsOfAgent && !(await this.#isLocked())) return;
    await this[Symbol.asyncDispose]();
    this.#agent = await TestAgent.dev('--no-default-key');
    ({ pools: this.pools, samples: this.samples } = await furnish(await this.#agent.client()));
    this.#runs = 0;
    this.#broken = false;
  }

  async #isLocked(): Promise<boolean> {
    using wire = await Wire.open(this.socketPath);
    return (await wire.call('status')).result?.['state'] !== 'UNLOCKED';
  }

  async #check(): Promise<void> {
    const { child, log } = this.#agent ?? {};
    must(child?.exitCode === null && child.signalCode === null, `the agent ended with ${child?.exitCode ?? child?.signalCode}`);
    using wire = await inTime(Wire.open(this.socketPath), 'a new connection is not accepted');
    const status = await inTime(wire.call('status'), 'status is not answered');
    must(status.result !== undefined, `status is answered ${JSON.stringify(status)}`);
    must(!log?.includes('failed unexpectedly'), `the log says: ${log}`);
    const size = residentMiB(child.pid ?? 0);
    must(size < mostMiB, `the agent has grown to ${size.toFixed(0)} MiB`);
  }
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Checks the form of an answer. @returns the code of its error, or ok. */
export function checkAnswer(method: string, answer: WireResponse): string {
  const { jsonrpc, result, error } = answer;
  must(jsonrpc === '2.0' && (result === undefined) !== (error === undefined), `no response of JSON-RPC 2.0: ${JSON.stringify(answer)}`);
  if (!error) {
    if (isMethodName(method)) decodeResult(method, result);
    return 'ok';
  }
  const { code, retryable, requestId } = error.data;
  const row = typeof code === 'string' && Object.hasOwn(errors, code) ? errors[code as keyof typeof errors] : undefined; // hasOwn proved it
  must(
    row !== undefined && row.number === error.code && row.message === error.message && row.retryable === retryable,
    `no error of ours: ${JSON.stringify(error)}`,
  );
  must(row.number < 1900 && code !== 'ERR_INTERNAL' && code !== 'ERR_TIMEOUT', `${method} is answered ${JSON.stringify(error)}`);
  must(typeof requestId === 'string' && uuid.test(requestId), `an error without its request id: ${JSON.stringify(error)}`);
  return String(code);
}
