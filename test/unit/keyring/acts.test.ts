import { createPublicKey, randomBytes } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import { Life } from '../../../daemon/src/keyring/life.ts';
import { wrapMaterial } from '../../kit/material.ts';
import { MemoryKeyring } from '../../kit/memory-keyring.ts';

const dayMs = 86_400_000;
const never = (): boolean => false;
const owner = { uid: 0 };
const spkiPem = (der: Uint8Array): string =>
  createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })
    .export({ format: 'pem', type: 'spki' })
    .toString();

/** Each act: what makes it due in a week, and what does it then. @returns the id of its key, where there is one before. */
const kinds: Record<string, { prepare: (memory: MemoryKeyring) => Promise<string>; act: (memory: MemoryKeyring, keyId: string) => Promise<unknown> }> = {
  rotate: {
    prepare: async ({ creation }) => (await creation.createKey(owner, { rotationInterval: '7d' })).keyId,
    act: ({ scheduler }) => scheduler.look(false, never),
  },
  destroy: {
    prepare: async ({ creation, keyring }) => new Life(keyring).scheduleDeletion(await creation.createKey(owner, {}), 7).keyId,
    act: ({ scheduler }) => scheduler.look(false, never),
  },
  expire: {
    prepare: async ({ creation, material, clock }) => {
      const key = await creation.createKey(owner, { aliasName: 'alias/default', origin: 'EXTERNAL' });
      const { importToken, publicKey } = await material.parameters(key, { wrappingKeySpec: 'RSA_2048' });
      const wrapped = wrapMaterial(spkiPem(publicKey), randomBytes(32));
      return (await material.import(key, importToken, wrapped, clock.nowMs + 7 * dayMs)).key.keyId;
    },
    act: ({ scheduler }) => scheduler.look(false, never),
  },
  budget: {
    prepare: async ({ creation }) => (await creation.createKey(owner, {})).keyId,
    act: ({ creation, keyring }, keyId) => creation.moveOn(keyring.keyById(keyId), 'budget'),
  },
  create: {
    prepare: () => Promise.resolve(''),
    act: ({ creation }) => creation.serviceKey('nginx.service'),
  },
};

test.each(Object.entries(kinds))(
  '%s: recorded as begun, then done; what cannot be recorded is not done, and is once it can be',
  async (name, { prepare, act }) => {
    const memory = await MemoryKeyring.make();
    const { clock, keyring, records, acts } = memory;
    const keyId = await prepare(memory);
    clock.nowMs += 8 * dayMs;
    clock.runningMs += 8 * dayMs;
    const { revision } = keyring.vault;
    memory.canRecord = false;
    for (let time = 0; time < 2; time += 1) await expect(act(memory, keyId)).rejects.toMatchObject({ code: 'ERR_AUDIT_UNAVAILABLE' });
    expect([keyring.vault.revision, records, acts]).toEqual([revision, [], []]);
    memory.canRecord = true;
    await act(memory, keyId);
    const id = keyId || [...keyring.keyIds.newest(1)][0];
    expect(records).toEqual([`${name} begun ${id}`, `${name} done ${id}`]);
    expect(acts).toEqual([`${name} ${id}`]);
    expect(keyring.vault.revision).toBeGreaterThan(revision);
  },
);

test('a vault that cannot be written: the act ends as failed, and a look leaves it at the first', async () => {
  const memory = await MemoryKeyring.make();
  const { clock, keyring, creation, scheduler, records } = memory;
  const { keyId } = await creation.createKey(owner, { rotationInterval: '7d' });
  await creation.createKey(owner, { rotationInterval: '7d' });
  clock.nowMs += 8 * dayMs;
  keyring.commit = () => {
    throw new AgentError('ERR_STORE_UNAVAILABLE');
  };
  await expect(scheduler.look(false, never)).rejects.toMatchObject({ code: 'ERR_STORE_UNAVAILABLE' });
  expect(records).toEqual([`rotate begun ${keyId}`, `rotate failed ${keyId} ERR_STORE_UNAVAILABLE`]);
});
