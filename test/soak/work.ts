import { randomBytes } from 'node:crypto';
import { type AgentClient, isAgentError } from '@kms-agent/client';

/** Keys that everybody works with. */
export interface Keys {
  readonly aes: string;
  readonly spare: string;
  readonly ec: string;
  readonly k1: string;
  readonly rsa: string;
  readonly rsaSign: string;
  /** In a token, where there is one. */
  readonly tokenAes?: string;
  readonly tokenEc?: string;
}

/** One thing to do; it answers whether what came back is right. */
export interface Work {
  readonly name: string;
  /** How often, beside the others. */
  readonly weight: number;
  readonly run: (kms: AgentClient) => Promise<boolean>;
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a).equals(Buffer.from(b));

/** Whether a call is refused with this code. */
async function isRefused(call: Promise<unknown>, code: string): Promise<boolean> {
  try {
    await call;
    return false;
  } catch (error) {
    if (isAgentError(error) && error.code === code) return true;
    throw error;
  }
}

async function goesRound(kms: AgentClient, keyId: string, plaintext: Uint8Array): Promise<boolean> {
  const aad = randomBytes(12);
  const sealed = await kms.advanceEncrypt({ keyId, plaintext, aad });
  return isSame((await kms.advanceDecrypt({ ...sealed, aad })).plaintext, plaintext);
}

async function signs(kms: AgentClient, keyId: string): Promise<boolean> {
  const message = randomBytes(40);
  const signed = await kms.sign({ keyId, message });
  const other = await kms.verify({ ...signed, message: randomBytes(40) });
  return (await kms.verify({ ...signed, message })).valid && !other.valid;
}

/** Every cryptographic operation, on software keys. */
function cryptography({ aes, spare, ec, k1, rsa, rsaSign }: Keys): Work[] {
  return [
    { name: 'advanceEncrypt, advanceDecrypt', weight: 10, run: (kms) => goesRound(kms, aes, randomBytes(1024)) },
    { name: 'advanceEncrypt of 64 KiB', weight: 1, run: (kms) => goesRound(kms, aes, randomBytes(65_536)) },
    {
      name: 'encrypt, decrypt',
      weight: 5,
      run: async (kms) => {
        const plaintext = randomBytes(100);
        return isSame((await kms.decrypt(await kms.encrypt({ keyId: aes, plaintext }))).plaintext, plaintext);
      },
    },
    {
      name: 'encrypt, decrypt RSA',
      weight: 2,
      run: async (kms) => isSame((await kms.decrypt(await kms.encrypt({ keyId: rsa, plaintext: Buffer.from('to RSA') }))).plaintext, Buffer.from('to RSA')),
    },
    {
      name: 'data keys',
      weight: 3,
      run: async (kms) => {
        const made = await kms.advanceGenerateDataKey({ keyId: aes });
        const raw = await kms.generateDataKey({ keyId: aes });
        const sealed = await kms.generateDataKeyWithoutPlaintext({ keyId: aes });
        const open = async (ciphertextBlob: Uint8Array): Promise<Uint8Array> => (await kms.advanceDecrypt({ ciphertextBlob })).plaintext;
        const { plaintext } = await kms.decrypt({ keyId: aes, ciphertextBlob: raw.ciphertextBlob, iv: raw.iv });
        return isSame(await open(made.ciphertextBlob), made.plaintext) && isSame(plaintext, raw.plaintext) && (await open(sealed.ciphertextBlob)).length === 32;
      },
    },
    {
      name: 'reEncrypt',
      weight: 2,
      run: async (kms) => {
        const plaintext = randomBytes(50);
        const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: aes, plaintext });
        const moved = await kms.reEncrypt({ ciphertextBlob, destinationKeyId: spare });
        return moved.keyId === spare && isSame((await kms.advanceDecrypt({ ciphertextBlob: moved.ciphertextBlob })).plaintext, plaintext);
      },
    },
    { name: 'sign, verify EC_P256', weight: 5, run: (kms) => signs(kms, ec) },
    { name: 'sign, verify EC_P256K', weight: 2, run: (kms) => signs(kms, k1) },
    { name: 'sign, verify RSA', weight: 2, run: (kms) => signs(kms, rsaSign) },
    { name: 'getPublicKey', weight: 1, run: async (kms) => (await kms.getPublicKey({ keyId: ec })).publicKey.startsWith('-----BEGIN PUBLIC KEY-----') },
    { name: 'generateRandom', weight: 2, run: async (kms) => (await kms.generateRandom({ numberOfBytes: 64 })).random.length === 64 },
  ];
}

/** What is refused must be refused for ever. */
function refusals({ aes, ec }: Keys): Work[] {
  return [
    {
      name: 'what does not open',
      weight: 3,
      run: async (kms) => {
        const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: aes, plaintext: randomBytes(20) });
        const changed = Buffer.from(ciphertextBlob);
        changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
        return await isRefused(kms.advanceDecrypt({ ciphertextBlob: changed }), 'ERR_INVALID_CIPHERTEXT');
      },
    },
    { name: 'what a key cannot do', weight: 1, run: (kms) => isRefused(kms.encrypt({ keyId: ec, plaintext: randomBytes(1) }), 'ERR_UNSUPPORTED_OPERATION') },
    { name: 'a key that is not there', weight: 1, run: (kms) => isRefused(kms.describeKey({ keyId: 'alias/none' }), 'ERR_ALIAS_NOT_FOUND') },
  ];
}

function token({ tokenAes, tokenEc }: Keys): Work[] {
  if (tokenAes === undefined || tokenEc === undefined) return [];
  return [
    { name: 'token: advanceEncrypt, advanceDecrypt', weight: 3, run: (kms) => goesRound(kms, tokenAes, randomBytes(256)) },
    { name: 'token: sign, verify EC_P256', weight: 3, run: (kms) => signs(kms, tokenEc) },
  ];
}

/** What administrators do all the time. */
function management({ aes, spare }: Keys): Work[] {
  return [
    {
      name: 'status, whoAmI, listKeys',
      weight: 1,
      run: async (kms) =>
        (await kms.listKeys({ limit: 20 })).keys.length > 5 && (await kms.whoAmI()).administrator && (await kms.status()).state !== 'UNINITIALIZED',
    },
    {
      name: 'describeKey, listKeyVersions',
      weight: 1,
      run: async (kms) =>
        (await kms.describeKey({ keyId: aes })).keyId === aes && (await kms.listKeyVersions({ keyId: aes, limit: 10 })).keyVersions.length > 0,
    },
    {
      name: 'tagKey, untagKey',
      weight: 1,
      run: async (kms) =>
        (await kms.tagKey({ keyId: spare, tags: { soak: 'yes' } })).tags['soak'] === 'yes' &&
        (await kms.untagKey({ keyId: spare, tagKeys: ['other'] })).keyId === spare,
    },
    { name: 'explain', weight: 1, run: async (kms) => (await kms.explain({ method: 'sign', keyId: aes })).allowed },
    { name: 'tailAudit', weight: 1, run: async (kms) => (await kms.tailAudit({ limit: 20 })).records.length > 0 },
  ];
}

/** Everything that clients do without a pause. */
export const worksFor = (keys: Keys): Work[] => [...cryptography(keys), ...refusals(keys), ...token(keys), ...management(keys)];

/** Picks works as often as their weights say. */
export function* mix(works: readonly Work[]): Generator<Work, never> {
  const all = works.flatMap((work) => Array.from({ length: work.weight }, () => work));
  for (;;) {
    const work = all[Math.floor(Math.random() * all.length)];
    if (work) yield work;
  }
}

/** What happens now and then: keys that come and go, new versions, states. */
export async function manageNowAndThen(kms: AgentClient, { aes, spare }: Keys, turn: number): Promise<boolean> {
  const { keyId } = await kms.createKey({
    keySpec: turn % 2 === 0 ? 'AES_256' : 'EC_P256',
    description: `made in turn ${turn}`,
    aliasName: `alias/soak/${turn}`,
  });
  await kms.createKeyVersion({ keyId: turn % 10 === 0 ? aes : keyId });
  await kms.setKeyPolicy({
    keyId,
    policy: { statements: [{ effect: 'Allow', principals: ['uid:0', `uid:${process.getuid?.() ?? 0}`], actions: ['use', 'view', 'manage'] }] },
  });
  await kms.disableKey({ keyId });
  const isDisabled = await isRefused(
    kms.advanceEncrypt({ keyId, plaintext: randomBytes(1) }),
    turn % 2 === 0 ? 'ERR_KEY_DISABLED' : 'ERR_UNSUPPORTED_OPERATION',
  );
  await kms.enableKey({ keyId });
  await kms.deleteAlias({ aliasName: `alias/soak/${turn}` });
  const { keyState } = await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
  return isDisabled && keyState === 'PendingDeletion' && (await kms.describeKey({ keyId: spare })).keyState === 'Enabled';
}
