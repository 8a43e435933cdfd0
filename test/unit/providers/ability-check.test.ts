import { describe, expect, test } from 'vitest';
import { AbilityCheck } from '../../../daemon/src/providers/pkcs11/ability-check.ts';
import { type TokenAbilities, TokenFailure } from '../../../daemon/src/providers/pkcs11/messages.ts';

const hourMs = 3_600_000;
const doubtful = (...names: string[]): TokenAbilities => ({
  aesBits: [256],
  aes: [],
  rsaBits: [],
  oaep: {},
  rsaSigning: [],
  curves: [],
  unwraps: [],
  works: [],
  refused: [],
  doubtful: names,
});

/** A check of a token that answers what `found` says, on a clock of its own. */
function setUp() {
  const token = { abilities: doubtful('AES_GCM', 'AES_ECB'), found: doubtful('AES_GCM', 'AES_ECB'), probes: 0, timeMs: 0 };
  const probe = async (): Promise<TokenAbilities> => {
    token.probes += 1;
    return token.found;
  };
  return { token, check: new AbilityCheck(token, probe, () => token.timeMs) };
}

describe('AbilityCheck', () => {
  test('settle: what is refused again and again in the same words is believed after four times', async () => {
    const { token, check } = setUp();
    for (let hour = 0; hour < 10; hour += 1) {
      await check.settle();
      token.timeMs += hourMs;
    }
    expect(token.probes).toBe(4);
  });

  test('settle: the waits grow', async () => {
    const { token, check } = setUp();
    const times: number[] = [];
    for (; token.timeMs < 100_000; token.timeMs += 500) {
      const { probes } = token;
      await check.settle();
      if (token.probes > probes) times.push(token.timeMs);
    }
    expect(times).toEqual([0, 1000, 11_000, 71_000]);
  });

  test('settle: what changes is asked after anew, until nothing is doubtful', async () => {
    const { token, check } = setUp();
    for (let turn = 0; turn < 3; turn += 1) {
      await check.settle();
      token.timeMs += hourMs;
    }
    token.found = doubtful('AES_ECB');
    await check.settle();
    for (let turn = 0; turn < 10; turn += 1) {
      token.timeMs += hourMs;
      await check.settle();
    }
    expect(token.probes).toBe(4 + 4);
    token.found = doubtful();
    check.doubt();
    for (let turn = 0; turn < 10; turn += 1) await check.settle();
    expect(token.probes).toBe(9);
    expect(token.abilities).toBe(token.found);
  });

  test('settle: a probe that costs helpers is tried no more often than one that changes nothing, until somebody doubts again', async () => {
    const token = { abilities: doubtful('AES_GCM') };
    let [timeMs, probes] = [0, 0];
    const probe = async (): Promise<never> => {
      probes += 1;
      throw new TokenFailure({ kind: 'failed', rv: 'the helper ended with SIGSEGV', call: 'probe' });
    };
    const check = new AbilityCheck(token, probe, () => timeMs);
    for (let turn = 0; turn < 10; turn += 1) {
      await check.settle().catch(() => undefined);
      timeMs += hourMs;
    }
    expect(probes).toBe(4);
    check.doubt();
    await expect(check.settle()).rejects.toThrow(TokenFailure);
    expect(probes).toBe(5);
  });

  test('settle: a probe that fails says nothing', async () => {
    const token = { abilities: doubtful('AES_GCM') };
    let [timeMs, probes] = [0, 0];
    const check = new AbilityCheck(
      token,
      async () => {
        probes += 1;
        throw new Error('gone');
      },
      () => timeMs,
    );
    for (let turn = 0; turn < 6; turn += 1) {
      await expect(check.settle()).rejects.toThrow('gone');
      timeMs += hourMs;
    }
    expect(probes).toBe(6);
  });
});
