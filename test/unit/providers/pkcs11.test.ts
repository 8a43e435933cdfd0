import { constants, generateKeyPairSync, privateDecrypt, publicEncrypt, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KeyTurns } from '../../../daemon/src/keyring/key-turns.ts';
import { Ladder } from '../../../daemon/src/providers/pkcs11/ladder.ts';
import { readMaterial } from '../../../daemon/src/providers/pkcs11/process/material.ts';
import { ecPublicKey } from '../../../daemon/src/providers/pkcs11/process/mechanism.ts';
import { addPkcs7, removeOaep, removePkcs7 } from '../../../daemon/src/providers/pkcs11/process/padding.ts';
import { kindOfLogInRv, kindOfRv, nameOfRv, rvOf } from '../../../daemon/src/providers/pkcs11/process/rv.ts';
import { SharedRuns } from '../../../daemon/src/providers/pkcs11/shared-runs.ts';
import { Slots } from '../../../daemon/src/providers/pkcs11/slots.ts';
import { formatTokenUri, parseTokenUri } from '../../../daemon/src/providers/pkcs11/uri.ts';

describe('token URIs (RFC 7512)', () => {
  test('what was formatted is parsed again, whatever the label', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), fc.string(), (label, serial) => {
        fc.pre(label.isWellFormed() && serial.isWellFormed());
        expect(parseTokenUri(formatTokenUri({ label, serial }))).toEqual({ token: label, serial });
      }),
    );
  });

  test('all four attributes, percent-encoded', () => {
    expect(parseTokenUri('pkcs11:token=My%20Token;serial=01;manufacturer=A%3BB;model=M')).toEqual({
      token: 'My Token',
      serial: '01',
      manufacturer: 'A;B',
      model: 'M',
    });
  });

  test.each([
    '',
    'pkcs11:',
    'http://x',
    'pkcs11:token',
    'pkcs11:slot-id=1',
    'pkcs11:token=a;token=b',
    'pkcs11:model=x',
    'pkcs11:token=a?pin-value=1',
    'pkcs11:token=%',
    'pkcs11:token=%ff',
  ])('%j is refused', (uri) => {
    expect(() => parseTokenUri(uri)).toThrow(TypeError);
  });
});

describe('padding', () => {
  test('PKCS #7: what was added goes, and nothing else passes for it', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (data) => {
        const padded = addPkcs7(data);
        expect(padded.length % 16).toBe(0);
        expect(Buffer.compare(removePkcs7(padded) ?? Buffer.from('none'), data)).toBe(0);
      }),
    );
    for (const last of [0, 17, 255]) expect(removePkcs7(Buffer.alloc(16, last))).toBeUndefined();
    expect(removePkcs7(Buffer.from(`${'00'.repeat(13)}020303`, 'hex'))).toBeUndefined();
    expect(removePkcs7(Buffer.alloc(15, 1))).toBeUndefined();
    expect(removePkcs7(new Uint8Array())).toBeUndefined();
  });

  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const decryptRaw = (ciphertext: Uint8Array): Buffer => privateDecrypt({ key: privateKey, padding: constants.RSA_NO_PADDING }, ciphertext);

  test.each([
    ['RSAES_OAEP_SHA_256', 'sha256', 190],
    ['RSAES_OAEP_SHA_1', 'sha1', 214],
  ] as const)('%s: opens what OpenSSL padded, of every length', (algorithm, oaepHash, max) => {
    for (const length of [0, 1, 16, 32, max - 1, max]) {
      const message = randomBytes(length);
      const encoded = decryptRaw(publicEncrypt({ key: publicKey, oaepHash, padding: constants.RSA_PKCS1_OAEP_PADDING }, message));
      expect(Buffer.compare(removeOaep(algorithm, encoded) ?? Buffer.from('none'), message)).toBe(0);
    }
  });

  test('OAEP: one byte changed anywhere, another hash, and what is no padding at all do not open', () => {
    const encoded = decryptRaw(publicEncrypt({ key: publicKey, oaepHash: 'sha256', padding: constants.RSA_PKCS1_OAEP_PADDING }, Buffer.from('message')));
    for (let index = 0; index < encoded.length; index += 1) {
      const changed = Buffer.from(encoded);
      changed[index] = (changed[index] ?? 0) ^ 0x01;
      const opened = removeOaep('RSAES_OAEP_SHA_256', changed);
      // the last bytes are the message, which OAEP by itself does not protect: a change there changes the seed's mask, and so all of it
      expect(opened && Buffer.compare(opened, Buffer.from('message')) === 0, `byte ${index}`).toBeFalsy();
    }
    expect(removeOaep('RSAES_OAEP_SHA_1', encoded)).toBeUndefined();
    for (const block of [Buffer.alloc(256), Buffer.alloc(256, 0xff), randomBytes(256)]) expect(removeOaep('RSAES_OAEP_SHA_256', block)).toBeUndefined();
  });
});

test('return values: what recovery may mend, what is the input, what is the PIN, and what is none of these', () => {
  const kinds = [0x5, 0x32, 0x101, 0x80000001, 0x40, 0x21, 0xa0, 0xa4, 0x7, 0x70, 0xfffff].map(kindOfRv);
  expect(kinds).toEqual(['fault', 'fault', 'fault', 'fault', 'data', 'data', 'pin', 'pin', 'failed', 'failed', 'failed']);
  expect(nameOfRv(0x32)).toBe('CKR_DEVICE_REMOVED');
  expect(nameOfRv(0x80000001)).toBe('0x80000001');
  expect(rvOf(Object.assign(new Error('x'), { code: 0xa0 }))).toBe(0xa0);
  expect(rvOf(new Error('CKR_DEVICE_ERROR:48\n at PKCS11.C_GenerateKey'))).toBe(48);
  expect(rvOf(new TypeError('no'))).toBeUndefined();
});

test('return values of C_Login: what recovery may mend, what is the PIN, what only a person mends, and what is not tried often', () => {
  const kinds = [0x30, 0x32, 0xb3, 0xe0, 0xa0, 0xa4, 0x102, 0x103, 0x5, 0x6, 0x7, 0x200, 0x80000001, 0xfffff].map(kindOfLogInRv);
  const vague = Array.from({ length: 6 }, () => 'vague');
  expect(kinds).toEqual(['fault', 'fault', 'fault', 'fault', 'pin', 'pin', 'refused', 'refused', ...vague]);
});

test('Slots: so many at a time, in the order in which they came, and no more wait than may', async () => {
  const slots = new Slots(2, 3);
  const order: number[] = [];
  let running = 0;
  let most = 0;
  const work = (index: number): Promise<void> =>
    slots.run(async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, 5));
      order.push(index);
      running -= 1;
      if (index === 1) throw new Error('one that fails gives its place back too');
    });
  const all = await Promise.allSettled([0, 1, 2, 3, 4, 5].map(work));
  expect(most).toBe(2);
  expect(order).toEqual([0, 1, 2, 3, 4]);
  expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled', 'rejected']);
  expect((all[5] as PromiseRejectedResult).reason).toMatchObject({ code: 'ERR_BUSY' });
  await slots.run(async () => undefined); // and there is room again
});

test('Slots: users take turns, of a user connections, and where too many wait the last of the user with the most is refused', async () => {
  const slots = new Slots(1, 5);
  const gate = Promise.withResolvers<void>();
  const order: string[] = [];
  const add = (uid: number, connection: number, name: string): Promise<unknown> => slots.run(async () => order.push(name), { uid, connection });
  const first = slots.run(() => gate.promise, { uid: 1, connection: 1 });
  const greedy = [1, 2, 3, 4].map((index) => add(1, 1, `a${index}`));
  const all = Promise.allSettled([...greedy, add(1, 2, 'b1'), add(2, 3, 'c1'), add(2, 4, 'd1'), add(1, 1, 'a5')]);
  gate.resolve();
  await first;
  expect((await all).map(({ status }) => status === 'fulfilled')).toEqual([true, true, false, false, true, true, true, false]);
  expect(order).toEqual(['a1', 'c1', 'b1', 'd1', 'a2']);
});

test('SharedRuns: whoever asks while one runs shares the next, and a failure reaches those who shared it only', async () => {
  const runs = new SharedRuns<number>();
  const gates = Array.from({ length: 3 }, () => Promise.withResolvers<void>());
  let begun = 0;
  const work = async (): Promise<number> => {
    begun += 1;
    const mine = begun;
    await gates[mine - 1]?.promise;
    if (mine === 2) throw new Error('the second');
    return mine;
  };
  const first = runs.run('a', work);
  const shared = Promise.allSettled([runs.run('a', work), runs.run('a', work)]);
  expect(begun).toBe(1);
  gates[0]?.resolve();
  expect(await first).toBe(1);
  gates[1]?.resolve();
  expect((await shared).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  expect(begun).toBe(2);
  gates[2]?.resolve();
  expect(await runs.run('a', work)).toBe(3);
});

test('KeyTurns: work on one key follows that before it, also one that failed; other keys do not wait', async () => {
  const turns = new KeyTurns();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = turns.run('a', async () => {
    await gate.promise;
    order.push('a1');
    throw new Error('a1');
  });
  const second = turns.run('a', async () => order.push('a2'));
  await turns.run('b', async () => order.push('b'));
  gate.resolve();
  await expect(first).rejects.toThrow('a1');
  await second;
  expect(order).toEqual(['b', 'a1', 'a2']);
});

test('Ladder: from the lowest rung, a rung higher when it is soon needed again, and at once a new helper where there is none', () => {
  const ladder = new Ladder();
  expect(ladder.steps(false)).toEqual(['login', 'initialize', 'helper']);
  expect(ladder.steps(true)).toEqual(['helper']);
  ladder.note('login'); // the first connection is no recovery
  expect(ladder.recoveries).toBe(0);
  expect(ladder.steps(false)).toEqual(['initialize', 'helper']);
  ladder.note('helper');
  expect(ladder.steps(false)).toEqual(['check', 'helper']);
  for (const step of ['check', 'renew'] as const) ladder.note(step); // they mend nothing
  expect(ladder.recoveries).toBe(1);
});

test('EC points: bare or as a DER OCTET STRING, whatever they begin with', () => {
  for (const [keySpec, namedCurve] of [
    ['EC_P256', 'P-256'],
    ['EC_P256K', 'secp256k1'],
  ] as const) {
    const seen = new Set<number>();
    for (let left = 20_000; left > 0 && !seen.has(0x3f); left -= 1) {
      const spki = generateKeyPairSync('ec', { namedCurve }).publicKey.export({ type: 'spki', format: 'der' });
      const bare = spki.subarray(-65);
      expect(Buffer.from(ecPublicKey(keySpec, bare)).equals(spki), bare.toString('hex')).toBe(true);
      expect(Buffer.from(ecPublicKey(keySpec, Buffer.concat([Buffer.from([0x04, 65]), bare]))).equals(spki)).toBe(true);
      seen.add(bare[1] ?? 0); // 0x3f is the length of the rest: the beginning of what could be DER
    }
    expect(seen).toContain(0x3f);
  }
});

test('imported RSA keys have exactly the bits that their spec says', () => {
  const key = { keyVersionId: '', keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY', label: '' } as const;
  const pkcs8Of = (modulusLength: number): Uint8Array => generateKeyPairSync('rsa', { modulusLength }).privateKey.export({ type: 'pkcs8', format: 'der' });
  expect(readMaterial(key, pkcs8Of(2048)).publicKey.length).toBeGreaterThan(256);
  expect(() => readMaterial(key, pkcs8Of(2047))).toThrow('invalid');
});
