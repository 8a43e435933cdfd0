import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BelievableClock, type TimeSource } from '../../daemon/src/keyring/clock.ts';
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
