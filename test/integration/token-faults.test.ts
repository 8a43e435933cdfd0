import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, isAgentError } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TempFolder } from '../kit/agent.ts';
import { FaultModule } from '../kit/fault.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';

/** What a client may be told while a token is sick; all of it is retryable. */
const honest = new Set(['ERR_HSM_UNAVAILABLE', 'ERR_KEY_UNAVAILABLE', 'ERR_BUSY']);
/** What a call is told that was there twice when a helper was lost: only then is it not to be tried again. */
const fatal = 'ERR_HSM_FAILED';

const faults: readonly [string, number | 'hang' | 'crash'][] = [
  ['CKR_DEVICE_REMOVED', 0x32],
  ['CKR_DEVICE_ERROR', 0x30],
  ['CKR_SESSION_HANDLE_INVALID', 0xb3],
  ['CKR_SESSION_CLOSED', 0xb0],
  ['CKR_USER_NOT_LOGGED_IN', 0x101],
  ['CKR_OBJECT_HANDLE_INVALID', 0x82],
  ['CKR_TOKEN_NOT_PRESENT', 0xe0],
  ['CKR_GENERAL_ERROR', 0x5],
  ['CKR_HOST_MEMORY', 0x2],
  ['CKR_OPERATION_ACTIVE', 0x90],
  ['a hang', 'hang'],
  ['a segfault', 'crash'],
];

/** Where a fault may strike: everywhere, in what ends an operation, in what begins one, and now and then. */
const places: readonly [string, string, number][] = [
  ['everywhere', '*', 1],
  ['in C_Sign and C_Decrypt', 'C_Sign,C_Decrypt', 1],
  ['in every third call', '*', 3],
];

/** Milliseconds after the end of a fault within which the service is back. */
const backWithinMs = 2000;

interface Keys {
  readonly aes: string;
  readonly ec: string;
  readonly rsa: string;
  readonly software: string;
  readonly publicKey: string;
}

/** Whether a process is there and has not ended; one that nobody has waited for yet has. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false; // it is not there
  }
}

/** 16 clients that use keys of the token, check every answer, and count what they were told. */
class Load {
  readonly told = new Map<string, number>();
  readonly wrong: string[] = [];
  done = 0;
  softwareDone = 0;
  softwareWrong: string[] = [];
  #running = true;
  readonly #workers: Promise<void>[];
  readonly #mayBeFatal: boolean;

  /** @param mayBeFatal - helpers are lost. */
  constructor(clients: readonly AgentClient[], keys: Keys, mayBeFatal: boolean) {
    this.#mayBeFatal = mayBeFatal;
    this.#workers = clients.map((client, index) => (index < 14 ? this.#useToken(client, keys, index) : this.#useSoftware(client, keys)));
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#workers);
  }

  async #useToken(client: AgentClient, keys: Keys, index: number): Promise<void> {
    const plain = Buffer.from(`mine ${index}`);
    let sealed: Uint8Array | undefined;
    const works = [
      async () => {
        sealed ??= (await client.advanceEncrypt({ keyId: keys.aes, plaintext: plain })).ciphertextBlob;
        const { plaintext } = await client.advanceDecrypt({ ciphertextBlob: sealed });
        return Buffer.from(plaintext).toString() === `mine ${index}`;
      },
      async () => {
        const message = randomBytes(20);
        const signed = await client.sign({ keyId: keys.ec, message });
        return (await client.verify({ ...signed, message })).valid;
      },
      async () => {
        const made = await client.encrypt({ keyId: keys.rsa, plaintext: Buffer.from('to the token') });
        return Buffer.from((await client.decrypt(made)).plaintext).toString() === 'to the token';
      },
    ];
    for (let turn = index; this.#running; turn += 1) {
      try {
        if (await works[turn % works.length]?.()) this.done += 1;
        else this.wrong.push(`a wrong answer of work ${turn % works.length}`);
      } catch (error) {
        const code = isAgentError(error) ? error.code : String(error);
        this.told.set(code, (this.told.get(code) ?? 0) + 1);
        if (!honest.has(code) && !(this.#mayBeFatal && code === fatal)) this.wrong.push(code);
        await delay(5);
      }
    }
  }

  async #useSoftware(client: AgentClient, keys: Keys): Promise<void> {
    while (this.#running) {
      const message = randomBytes(8);
      const { signature } = await client.sign({ keyId: keys.software, message });
      const ok = (await client.verify({ keyId: keys.software, message, signature })).valid;
      if (ok) this.softwareDone += 1;
      else this.softwareWrong.push('a software signature was wrong');
    }
  }
}

describe.skipIf(!hasSoftHsm)('a token that fails (needs SoftHSM and gcc)', () => {
  let rig: TokenRig;
  let fault: FaultModule;
  let clients: AgentClient[];
  let keys: Keys;
  const folder = new TempFolder();

  beforeAll(async () => {
    fault = new FaultModule(folder);
    rig = await TokenRig.make({ module: fault.module, env: fault.env, overrides: { timeoutMs: 400, checkIntervalMs: 200 } });
    clients = await Promise.all(Array.from({ length: 16 }, () => rig.client()));
    const [kms] = clients;
    if (!kms) throw new Error('there is no client');
    const make = async (params: Parameters<AgentClient['createKey']>[0]): Promise<string> => (await kms.createKey(params)).keyId;
    const ec = await make({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    keys = {
      aes: await make({ protectionLevel: 'HSM' }),
      ec,
      rsa: await make({ protectionLevel: 'HSM', keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' }),
      software: await make({ keySpec: 'EC_P256' }),
      publicKey: (await kms.getPublicKey({ keyId: ec })).publicKey,
    };
  });
  afterAll(async () => {
    fault?.end();
    await rig?.[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  /** Whether every kind of work is done again, within the time. */
  async function expectBack(): Promise<void> {
    const [kms] = clients;
    const end = Date.now() + backWithinMs;
    for (;;) {
      try {
        await kms?.sign({ keyId: keys.ec, message: Buffer.from('back') });
        const sealed = await kms?.advanceEncrypt({ keyId: keys.aes, plaintext: Buffer.from('back') });
        if (sealed) await kms?.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob });
        return;
      } catch (error) {
        if (Date.now() > end) throw error;
        await delay(20);
      }
    }
  }

  describe.each(faults)('%s', (_name, what) => {
    test.each(places)('%s, under load: no wrong answer, nobody stuck, software keys go on, and it comes back by itself', async (_where, functions, every) => {
      const load = new Load(clients, keys, typeof what === 'string');
      await delay(100);
      const start = load.softwareDone;
      await delay(350);
      const before = load.softwareDone;
      fault.begin(functions, what, every);
      await delay(700);
      const during = load.softwareDone;
      fault.end();
      await expectBack();
      const doneBefore = load.done;
      await delay(150);
      await load.stop();
      expect(load.wrong, rig.log.split('\n').slice(-20).join('\n')).toEqual([]);
      expect(load.softwareWrong).toEqual([]);
      expect(during - before, 'software keys during the fault, which lasts twice as long as what they are compared with').toBeGreaterThan((before - start) / 2);
      expect(load.done, 'work after the fault').toBeGreaterThan(doneBefore);
    });
  });

  test('the helper killed 100 times: every request is answered, and none is wrong', async () => {
    const load = new Load(clients, keys, true);
    const [kms] = clients;
    const killed = new Set<number>();
    while (killed.size < 100) {
      const hsm = (await kms?.status())?.providers?.find(({ name }) => name === 'hsm');
      const pid = hsm?.state === 'ok' ? hsm.hsm?.helperPid : undefined;
      if (pid === undefined || killed.has(pid)) {
        await delay(5);
        continue;
      }
      process.kill(pid, 'SIGKILL');
      killed.add(pid);
      await delay(20);
    }
    await expectBack();
    await load.stop();
    expect(load.wrong).toEqual([]);
    expect(load.done).toBeGreaterThan(0);
  }, 120_000);

  test('the token directory moved away and back: down meanwhile, said once, and back by itself', async () => {
    const [kms] = clients;
    const lines = (): number => rig.log.split('\n').filter((line) => line.includes('out of reach')).length;
    const before = lines();
    rig.hideTokens();
    await delay(900);
    const error: unknown = await kms?.sign({ keyId: keys.ec, message: Buffer.from('x') }).catch((thrown: unknown) => thrown);
    expect(isAgentError(error, 'ERR_HSM_UNAVAILABLE', 'ERR_KEY_UNAVAILABLE')).toBe(true);
    expect((await kms?.describeKey({ keyId: keys.ec }))?.keyState).toBe('Unavailable');
    for (let index = 0; index < 50; index += 1) await kms?.sign({ keyId: keys.ec, message: Buffer.from('x') }).catch(() => undefined);
    rig.showTokens();
    await expectBack();
    expect(lines() - before).toBeLessThanOrEqual(2);
    expect((await kms?.describeKey({ keyId: keys.ec }))?.keyState).toBe('Enabled');
  });

  test('an agent killed while a module hangs leaves no helper behind', async () => {
    using other = new TempFolder();
    const hanging = new FaultModule(other);
    await using hung = await TokenRig.make({ module: hanging.module, env: hanging.env, overrides: { timeoutMs: 60_000 } });
    const kms = await hung.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const pid = (await kms.status()).providers?.find(({ name }) => name === 'hsm')?.hsm?.helperPid ?? 0;
    hanging.begin('C_SignInit', 'hang');
    const signing = kms.sign({ keyId, message: Buffer.from('x') }, { timeoutMs: 500 }).catch(() => undefined);
    await delay(200);
    process.kill(pid, 0);
    await hung.agent?.end('SIGKILL');
    await signing;
    await delay(500);
    expect(isAlive(pid)).toBe(false);
  });

  test('a lock does not wait for a module that hangs longer than it may', async () => {
    using other = new TempFolder();
    const hanging = new FaultModule(other);
    await using hung = await TokenRig.make({ module: hanging.module, env: hanging.env, overrides: { timeoutMs: 60_000 }, settings: { lockTimeoutMs: 1000 } });
    const kms = await hung.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    hanging.begin('C_SignInit', 'hang');
    const signing = kms.sign({ keyId, message: Buffer.from('x') }).then(
      () => 'signed',
      (error: unknown) => (isAgentError(error) ? error.code : String(error)),
    );
    await delay(100);
    expect((await kms.lock()).state).toBe('LOCKED');
    expect(await signing).toBe('ERR_HSM_UNAVAILABLE');
  });

  test('10,000 blobs that do not open beside good ones: each gets its answer, no recovery starts, and nobody waits for them', async () => {
    const [kms, good] = clients;
    if (!kms || !good) throw new Error('there is no client');
    const recoveries = async (): Promise<number> => (await kms.status()).providers?.find(({ name }) => name === 'hsm')?.hsm?.recoveries ?? 0;
    await delay(1100); // what went before is not suspicious any more
    const before = await recoveries();
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: keys.aes, plaintext: Buffer.from('good') });
    const bad = Buffer.from(ciphertextBlob);
    bad[bad.length - 1] = (bad.at(-1) ?? 0) ^ 1;
    const answers = new Map<string, number>();
    const open = async (client: AgentClient, blob: Uint8Array): Promise<string> =>
      await client.advanceDecrypt({ ciphertextBlob: blob }).then(
        ({ plaintext }) => Buffer.from(plaintext).toString(),
        (error: unknown) => (isAgentError(error) ? error.code : String(error)),
      );
    /** Milliseconds of half of the good calls, one after the other, beside many of another blob. */
    const medianBeside = async (blob: Uint8Array, rounds: number): Promise<number> => {
      let running = true;
      const times: number[] = [];
      const goodWork = (async () => {
        while (running) {
          const start = performance.now();
          expect(await open(good, ciphertextBlob)).toBe('good');
          times.push(performance.now() - start);
        }
      })();
      for (let round = 0; round < rounds; round += 1)
        for (const code of await Promise.all(Array.from({ length: 100 }, () => open(kms, blob)))) answers.set(code, (answers.get(code) ?? 0) + 1);
      running = false;
      await goodWork;
      expect(times.length).toBeGreaterThan(10);
      return times.toSorted((one, other) => one - other)[Math.floor(times.length / 2)] ?? Number.NaN;
    };
    const besideGood = await medianBeside(ciphertextBlob, 50);
    const besideBad = await medianBeside(bad, 100);
    expect([...answers]).toEqual([
      ['good', 5000],
      ['ERR_INVALID_CIPHERTEXT', 10_000],
    ]);
    expect(await recoveries()).toBe(before);
    // users and connections take turns: what others ask, good or bad, is in nobody's way for long
    expect(besideBad, 'half of the good calls beside bad ones, and beside good ones').toBeLessThan(3 * besideGood);
  }, 120_000);

  test('a vault and a token after all that: every key is there, and nothing stands in one of them alone', async () => {
    await rig.restart();
    clients = await Promise.all(Array.from({ length: 2 }, () => rig.client()));
    await expectBack();
    expect((await clients[0]?.status())?.warnings?.filter((line) => line.includes('token')) ?? []).toEqual([]);
    expect(createHash('sha256').update(keys.publicKey).digest()).toHaveLength(32);
  });
});
