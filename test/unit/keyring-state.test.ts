import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BelievableClock, type TimeSource } from '../../daemon/src/keyring/clock.ts';
import { type Key, storedStateOf } from '../../daemon/src/keyring/key.ts';
import { afterEvent, type Happening } from '../../daemon/src/keyring/key-event.ts';
import { requireState, type StoredState, stateOf, transition } from '../../daemon/src/keyring/state.ts';

const stored: fc.Arbitrary<StoredState> = fc.record({ disabled: fc.boolean(), pendingDeletion: fc.boolean(), hasMaterial: fc.boolean() });
const code = (error: unknown): unknown => (error as { code?: unknown }).code;

describe('transition', () => {
  test('cancelDeletion: gives back the state before scheduleDeletion, whatever it was', () => {
    fc.assert(
      fc.property(
        stored.filter(({ pendingDeletion }) => !pendingDeletion),
        (before) => {
          expect(transition(transition(before, 'scheduleDeletion'), 'cancelDeletion')).toEqual(before);
        },
      ),
    );
  });

  test('a refused event: leaves nothing behind and names a state error', () => {
    fc.assert(
      fc.property(stored, fc.constantFrom('enable', 'disable', 'scheduleDeletion', 'cancelDeletion', 'importMaterial', 'deleteMaterial'), (before, event) => {
        const frozen = Object.freeze({ ...before });
        try {
          expect(stateOf(transition(frozen, event))).toMatch(/^(Enabled|Disabled|PendingDeletion|PendingImport)$/);
        } catch (error) {
          expect(code(error)).toBe('ERR_STATE_CONFLICT');
        }
        expect(frozen).toEqual(before);
      }),
    );
  });

  test('the flag disabled: survives the loss of material and its import', () => {
    fc.assert(
      fc.property(fc.boolean(), fc.constantFrom('deleteMaterial', 'expire'), (disabled, loss) => {
        const lost = transition({ disabled, pendingDeletion: false, hasMaterial: true }, loss);
        expect(stateOf(lost)).toBe('PendingImport');
        expect(stateOf(transition(lost, 'importMaterial'))).toBe(disabled ? 'Disabled' : 'Enabled');
      }),
    );
  });

  test('publicKey: not before the material is there', () => {
    const refusal = (state: StoredState): unknown => {
      try {
        return requireState(state, 'publicKey');
      } catch (error) {
        return code(error);
      }
    };
    expect(refusal({ disabled: false, pendingDeletion: false, hasMaterial: false })).toBe('ERR_KEY_PENDING_IMPORT');
    expect(refusal({ disabled: true, pendingDeletion: true, hasMaterial: true })).toBeUndefined();
  });
});

describe('afterEvent: what the agent runs', () => {
  const material = new Uint8Array([1]);
  const version = { keyVersionId: 'v', creationTime: 0, keySpec: 'AES_256', useCount: 0, reservedUses: 0, restores: 0 } as const;
  /** A key in a state; its material may still be there although its time is over. */
  const makeKey = ({ disabled, pendingDeletion, hasMaterial }: StoredState, isThere: boolean): Key => ({
    keyId: 'k',
    keySpec: 'AES_256',
    keyUsage: 'ENCRYPT_DECRYPT',
    protectionLevel: 'SOFTWARE',
    origin: 'EXTERNAL',
    provider: 'software',
    creator: 'uid:0',
    creationTime: 0,
    description: '',
    tags: {},
    disabled,
    ...(pendingDeletion ? { deletionTime: 7, windowEnd: 7 } : {}),
    ...(hasMaterial ? {} : { materialExpireTime: 1 }),
    deletionProtection: { enabled: false },
    rotation: { enabled: false },
    lastRotationTime: 0,
    primaryKeyVersionId: 'v',
    versions: [{ ...version, material: hasMaterial || isThere ? material : new Uint8Array() }],
    usage: { lastUsedTime: 0, writtenTime: 0 },
  });
  const happenings: readonly Happening[] = [
    ...(['enable', 'disable', 'cancelDeletion', 'deleteMaterial', 'expire'] as const).map((event) => ({ event })),
    { event: 'scheduleDeletion', window: { deletionTime: 9, windowEnd: 8 } },
    { event: 'importMaterial', imported: { version: { material: new Uint8Array([2]) }, checkValue: 'c' } },
  ];

  test('any sequence of events: the key is in the state that the transition says, or what the transition refuses is refused and nothing changes', () => {
    fc.assert(
      fc.property(stored, fc.boolean(), fc.array(fc.constantFrom(...happenings), { minLength: 1, maxLength: 12 }), (first, isThere, events) => {
        let state = first;
        let key = makeKey(first, isThere);
        for (const happening of events) {
          const attempt = (work: () => unknown): unknown => {
            try {
              return work();
            } catch (error) {
              return code(error);
            }
          };
          const expected = attempt(() => transition(state, happening.event));
          const after = attempt(() => afterEvent(key, state, happening));
          if (typeof expected === 'string') expect(after).toBe(expected);
          else {
            [key, state] = [after as Key, expected as StoredState];
            expect(storedStateOf(key, (key.materialExpireTime ?? 2) < 2)).toEqual(state);
          }
        }
      }),
    );
  });
});

describe('BelievableClock', () => {
  const hour = 3_600_000;
  const day = 24 * hour;
  const make = (): { source: { wallMs: number; bootMs: number; bootId: string }; clock: BelievableClock } => {
    const source = { wallMs: 1000 * day, bootMs: hour, bootId: 'a' };
    const time: TimeSource = {
      wall: () => source.wallMs,
      sinceBoot: () => source.bootMs,
      slept: () => 0,
      get bootId() {
        return source.bootId;
      },
    };
    return { source, clock: new BelievableClock(time, 3 * day) };
  };

  test('both clocks going on together, for years and in any steps: believed', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 100 * day }), { maxLength: 50 }), (steps) => {
        const { source, clock } = make();
        for (const step of steps) {
          source.wallMs += step;
          source.bootMs += step;
          expect(clock.observe()).toBe(0);
        }
      }),
    );
  });

  test('a jump, also one in many small parts: not believed until it is put right or confirmed', () => {
    const { source, clock } = make();
    for (let step = 0; step < 4; step += 1) {
      source.wallMs += hour / 2;
      clock.observe();
    }
    expect(clock.observe()).toBe(2 * hour);
    source.wallMs -= 2 * hour;
    expect(clock.observe()).toBe(0);
    source.wallMs -= 10 * day;
    expect(clock.observe()).toBe(-10 * day);
    clock.confirm();
    expect(clock.observe()).toBe(0);
  });

  test('running time: never more than what went by, whatever is done to the wall clock, through starts of the machine and processes that forget', () => {
    const step = fc.record({
      kind: fc.constantFrom('go', 'set', 'boot', 'process', 'confirm'),
      ms: fc.integer({ min: 0, max: 40 * day }),
      wallMs: fc.integer({ min: -4000 * day, max: 4000 * day }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let { source, clock } = make();
        let realMs = 0;
        let kept = clock.kept;
        for (const { kind, ms, wallMs } of steps) {
          if (kind === 'set') source.wallMs += wallMs;
          else realMs += ms;
          if (kind === 'go' || kind === 'process') {
            source.wallMs += ms;
            source.bootMs += ms;
          }
          if (kind === 'boot') [source.bootId, source.bootMs, source.wallMs] = [`${source.bootId}'`, Math.min(ms, 60_000), source.wallMs + ms + wallMs];
          if (kind === 'confirm') clock.confirm();
          if (kind === 'process') {
            const next = make();
            Object.assign(next.source, source);
            next.clock.resume(kept);
            ({ source, clock } = next);
          } else if (ms % 2 === 0) kept = clock.kept;
          clock.observe();
          expect(clock.runningMs()).toBeLessThanOrEqual(realMs);
        }
      }),
    );
  });

  test('a restart of the machine: off for a weekend is believed, a year ahead and an hour and a half back are not', () => {
    const jumpAfter = (offMs: number): number => {
      const { source, clock } = make();
      clock.observe();
      source.bootId = 'b';
      source.bootMs = 60_000;
      source.wallMs += offMs + 60_000;
      return clock.observe();
    };
    expect(jumpAfter(2 * day)).toBe(0);
    expect(jumpAfter(365 * day)).toBe(362 * day);
    expect(jumpAfter(-1.5 * hour)).toBe(-1.5 * hour);
  });
});
