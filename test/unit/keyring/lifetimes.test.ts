import { randomBytes } from 'node:crypto';
import { isAgentError } from '@kms-agent/protocol';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { initialVersion, type Key, type KeyLifetime, type KeyVersionEntry } from '../../../daemon/src/keyring/key.ts';
import { Lifetimes } from '../../../daemon/src/keyring/lifetimes.ts';
import type { MaterialRef } from '../../../daemon/src/providers/provider.ts';
import { boxFor, deriveBoxKey, publicPartOf, type Unbox, unboxWith } from '../../../daemon/src/vault/box.ts';

const boxKey = deriveBoxKey(randomBytes(32));
const [realBox, realUnbox] = [boxFor(publicPartOf(boxKey)), unboxWith(boxKey)];
const keyIds = ['a', 'b', 'c'];
const inToken = 'c';
const isWiped = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

/** What the vault would have of a key, and what its material was before it was sealed. */
interface Kept {
  readonly lifetime: KeyLifetime;
  readonly version: KeyVersionEntry;
  readonly clear: Buffer;
}

/** A key as the model has it. */
interface Modelled {
  readonly seconds: number;
  until: number;
  isOpen: boolean;
  readonly running: Set<Running>;
}

/** An operation that goes on until it is told to end. */
interface Running {
  readonly ref: MaterialRef;
  readonly end: () => Promise<void>;
}

function makeKey(keyId: string, material: Buffer): Key {
  const version = { keyVersionId: `${keyId} 1`, keySpec: 'AES_256', creationTime: 0, useCount: 0, reservedUses: 0, restores: 0, material } as const;
  return {
    keyId,
    keySpec: 'AES_256',
    keyUsage: 'ENCRYPT_DECRYPT',
    protectionLevel: keyId === inToken ? 'HSM' : 'SOFTWARE',
    origin: 'GENERATED',
    provider: 'software',
    creator: 'uid:0',
    creationTime: 0,
    description: '',
    tags: {},
    disabled: false,
    deletionProtection: { enabled: false },
    rotation: { enabled: false },
    lastRotationTime: 0,
    primaryKeyVersionId: version.keyVersionId,
    versions: [version],
    usage: { lastUsedTime: 0, writtenTime: 0 },
  };
}

/** Real lifetimes beside a model of them, with a clock of their own and every wrapping key that ever was. */
class World {
  now = 0;
  readonly kept = new Map<string, Kept>();
  readonly model = new Map<string, Modelled>();
  readonly #wrappingKeys = new Map<string, Uint8Array[]>();
  readonly real = new Lifetimes({
    box: () => (aad, plaintext) => {
      this.#note(aad, plaintext);
      return realBox(aad, plaintext);
    },
    sinceBoot: () => this.now,
    providers: [],
  });

  limit(keyId: string, seconds: number, waitMs: number): void {
    if (this.model.has(keyId)) return;
    const material = randomBytes(32);
    const clear = Buffer.from(material);
    const limited = this.real.limit(makeKey(keyId, material), seconds);
    this.now += waitMs;
    limited.begin();
    const { key } = limited;
    if (!key.lifetime) throw new Error('it was given one');
    this.kept.set(keyId, { lifetime: key.lifetime, version: initialVersion(key), clear });
    this.model.set(keyId, { seconds, until: this.now + seconds * 1000, isOpen: true, running: new Set() });
    expect(isWiped(material)).toBe(keyId !== inToken);
  }

  /** As after a start: the vault has the key, and nothing opened it yet. */
  know(keyId: string): void {
    const kept = this.kept.get(keyId);
    if (!kept) return;
    this.real.know(keyId, kept.lifetime);
    if (!this.model.has(keyId)) this.model.set(keyId, { seconds: kept.lifetime.seconds, until: 0, isOpen: false, running: new Set() });
  }

  async renew(): Promise<void> {
    const unbox: Unbox = (aad, boxed) => {
      const opened = realUnbox(aad, boxed);
      if (opened) this.#note(aad, opened);
      return opened;
    };
    await this.real.renew(unbox);
    for (const modelled of this.model.values()) Object.assign(modelled, { until: this.now + modelled.seconds * 1000, isOpen: true });
  }

  /** Begins an operation where the time allows one. */
  run(keyId: string): void {
    const [kept, modelled] = [this.kept.get(keyId), this.model.get(keyId)];
    if (!kept || !modelled || modelled.until <= this.now) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    let used: MaterialRef | undefined;
    const done = this.real.run(keyId, kept.version, async (ref) => {
      used = ref;
      await promise;
    });
    if (!used) throw new Error('it begins in the turn that allowed it');
    const running: Running = {
      ref: used,
      end: async () => {
        resolve();
        await done;
      },
    };
    modelled.running.add(running);
  }

  async endRun(keyId: string): Promise<void> {
    const modelled = this.model.get(keyId);
    const [running] = modelled?.running ?? [];
    if (!running) return;
    modelled?.running.delete(running);
    await running.end();
  }

  dropOver(): void {
    const over = [...this.model].filter(([keyId, { isOpen, until, running }]) => isOpen && until <= this.now && (keyId === inToken || running.size === 0));
    expect(this.real.dropOver()).toEqual(over.map(([keyId]) => keyId));
    for (const [keyId, modelled] of over) {
      modelled.isOpen = false;
      this.expectNothingHeld(keyId);
    }
  }

  forget(keyId: string): void {
    this.real.forget(keyId);
    for (const { ref, end } of this.model.get(keyId)?.running ?? []) {
      if (keyId !== inToken) expect(isWiped(ref.material)).toBe(true);
      void end();
    }
    this.model.delete(keyId);
    this.expectNothingHeld(keyId);
  }

  check(): void {
    for (const keyId of keyIds) this.#checkKey(keyId, this.model.get(keyId));
    const ends = [...this.model.values()].filter(({ isOpen }) => isOpen).map(({ until }) => until - this.now);
    expect(this.real.nextEndMs).toBeLessThanOrEqual(Math.max(Math.min(...ends, Number.POSITIVE_INFINITY), 0));
    expect(this.real.isUsed).toBe(this.model.size > 0);
  }

  #checkKey(keyId: string, modelled: Modelled | undefined): void {
    const isOver = modelled !== undefined && modelled.until <= this.now;
    expect([keyId, this.real.isOver(keyId)]).toEqual([keyId, isOver]);
    const refusal = refusalOf(() => this.real.require(keyId));
    expect([keyId, isAgentError(refusal, 'ERR_AGENT_LOCKED')]).toEqual([keyId, isOver]);
    for (const { ref } of modelled?.running ?? []) expect(Buffer.from(ref.material)).toEqual(this.kept.get(keyId)?.clear);
    if (modelled && !modelled.isOpen) this.expectNothingHeld(keyId);
  }

  expectNothingHeld(keyId: string): void {
    expect((this.#wrappingKeys.get(keyId) ?? []).filter((bytes) => !isWiped(bytes))).toEqual([]);
  }

  #note(aad: Uint8Array, wrappingKey: Uint8Array): void {
    const keyId = Buffer.from(aad).toString().split(' ').at(-1) ?? '';
    this.#wrappingKeys.set(keyId, [...(this.#wrappingKeys.get(keyId) ?? []), wrappingKey]);
  }
}

function refusalOf(work: () => void): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

type Step = (world: World) => void | Promise<void>;
const keyId = fc.constantFrom(...keyIds);
const ms = fc.constantFrom(0, 1, 999, 1000, 1001, 2000, 5000);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(keyId, fc.constantFrom(1, 2, 5), ms).map(
    ([id, seconds, waitMs]): Step =>
      (world) =>
        world.limit(id, seconds, waitMs),
  ),
  keyId.map(
    (id): Step =>
      (world) =>
        world.know(id),
  ),
  fc.constant<Step>((world) => world.renew()),
  {
    weight: 3,
    arbitrary: keyId.map(
      (id): Step =>
        (world) =>
          world.run(id),
    ),
  },
  keyId.map(
    (id): Step =>
      (world) =>
        world.endRun(id),
  ),
  { weight: 2, arbitrary: fc.constant<Step>((world) => world.dropOver()) },
  keyId.map(
    (id): Step =>
      (world) =>
        world.forget(id),
  ),
  {
    weight: 3,
    arbitrary: ms.map(
      (passed): Step =>
        (world) => {
          world.now += passed;
        },
    ),
  },
);

test('any sequence: a key can be used exactly when its time is not over, what is over holds no wrapping key, what runs keeps its material, no end comes unseen', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
      const world = new World();
      for (const take of steps) {
        await take(world);
        world.check();
      }
      for (const id of keyIds) world.forget(id);
    }),
    { numRuns: 300 },
  );
});

test('an operation that runs when the time is over: it ends with its material, which is overwritten afterwards only', async () => {
  const world = new World();
  world.limit('a', 1, 0);
  world.run('a');
  const [running] = world.model.get('a')?.running ?? [];
  world.now += 1000;
  world.dropOver();
  expect(running && isWiped(running.ref.material)).toBe(false);
  expect(world.real.nextEndMs).toBe(0);
  await world.endRun('a');
  world.dropOver();
  expect(running && isWiped(running.ref.material)).toBe(true);
  expect(world.real.nextEndMs).toBe(Number.POSITIVE_INFINITY);
});

test('very many keys with a lifetime: the first end is no more to do than any other', () => {
  let now = 0;
  const lifetimes = new Lifetimes({ box: () => realBox, sinceBoot: () => now, providers: [] });
  const first = lifetimes.limit(makeKey('first', randomBytes(32)), 60);
  first.begin();
  for (let known = 0; known < 200_000; known += 1) lifetimes.know(`other ${known}`, { seconds: 60, boxedKey: new Uint8Array() });
  now = 60_000;
  expect(lifetimes.dropOver()).toEqual(['first']);
  expect(lifetimes.nextEndMs).toBe(Number.POSITIVE_INFINITY);
});
