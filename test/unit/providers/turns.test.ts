import { setTimeout as delay } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import { TokenFailure } from '../../../daemon/src/providers/pkcs11/messages.ts';
import { defaultTokenSettings } from '../../../daemon/src/providers/pkcs11/settings.ts';
import { Tries } from '../../../daemon/src/providers/pkcs11/tries.ts';
import { type Asked, Turns } from '../../../daemon/src/providers/pkcs11/turns.ts';

const settings = { ...defaultTokenSettings, name: 'hsm', module: '/m.so', uri: 'pkcs11:token=hsm' };
const lost = (helper: 'died' | 'late' | 'ended') => ({ kind: 'fault', rv: 'a loss', call: 'sign', helper }) as const;
const asked = (kind: string, connection = 1): Asked => ({ call: 'sign', asker: { uid: 1, connection }, kind });
const makeTurns = (overrides: { readonly timeoutMs?: number; readonly maxQueued?: number } = {}): Turns =>
  new Turns({ ...settings, ...overrides }, () => undefined);

/** Tries a call once. */
async function tryOnce<T>(turns: Turns, what: Asked, ask: () => Promise<T>, tries = new Tries(1000)): Promise<T> {
  try {
    return await turns.run(what, tries, ask);
  } finally {
    turns.end(tries);
  }
}

test.each([
  ['late', ['other', 'suspect']],
  ['died', ['suspect', 'other']],
] as const)('Turns: a suspect (%s) runs alone; one that was late, and may hang again, lets others in before it has ended', async (helper, order) => {
  const turns = makeTurns();
  const tries = new Tries(1000);
  tries.note(lost(helper));
  const ended: string[] = [];
  const gate = Promise.withResolvers<void>();
  const suspect = turns.run(asked('a'), tries, () => gate.promise).then(() => ended.push('suspect'));
  const other = turns.run(asked('b'), new Tries(1000), async () => undefined).then(() => ended.push('other'));
  await delay(20);
  gate.resolve();
  await Promise.all([suspect, other]);
  expect(ended).toEqual(order);
});

test('Turns: of a kind that has cost helpers one is tried for all of a connection; what another connection asks is tried by itself', async () => {
  const turns = makeTurns();
  const fail = async (): Promise<never> => {
    throw new TokenFailure(lost('died'));
  };
  const tries = new Tries(1000);
  for (let left = 2; left > 0; left -= 1) await expect(tryOnce(turns, asked('a'), fail, tries)).rejects.toMatchObject({ failure: { kind: 'fault' } });
  let tried = 0;
  const ask = (): Promise<never> => {
    tried += 1;
    return fail();
  };
  const mine = Promise.allSettled(Array.from({ length: 5 }, () => tryOnce(turns, asked('a'), ask)));
  const others = tryOnce(turns, asked('a', 2), async () => 'answered');
  expect(await tryOnce(turns, asked('b'), async () => 'answered')).toBe('answered');
  const kinds = (await mine).map((outcome) => (outcome.status === 'rejected' ? outcome.reason.failure.kind : 'answered'));
  expect(kinds).toEqual(['fault', 'failed', 'failed', 'failed', 'failed']);
  expect(tried).toBe(1);
  expect(await others).toBe('answered');
  expect(await tryOnce(turns, asked('a'), async () => 'answered')).toBe('answered');
});

test('Turns: of a kind that has cost helpers, who has waited for as long as a call may last while others lost theirs is told the same, untried', async () => {
  const turns = makeTurns({ timeoutMs: 500 }); // less than the pause before a try
  let tried = 0;
  const ask = async (): Promise<never> => {
    tried += 1;
    throw new TokenFailure(lost('died'));
  };
  const tries = new Tries(1000);
  for (let left = 2; left > 0; left -= 1) await expect(tryOnce(turns, asked('a'), ask, tries)).rejects.toMatchObject({ failure: { kind: 'fault' } });
  tried = 0;
  const outcomes = await Promise.allSettled(Array.from({ length: 4 }, (_, connection) => tryOnce(turns, asked('a', connection), ask)));
  const kinds = outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason.failure.kind : 'answered'));
  expect(kinds).toEqual(['fault', 'failed', 'failed', 'failed']);
  expect(tried).toBe(1);
});

test('Tries: no try begins long after the first, however often others took its helper', async () => {
  const tries = new Tries(1);
  tries.begin();
  await delay(10);
  tries.note(lost('ended'));
  expect(() => tries.checkRepeat(lost('ended'))).toThrow(TokenFailure);
  const young = new Tries(60_000);
  young.begin();
  young.note(lost('ended'));
  expect(() => young.checkRepeat(lost('ended'))).not.toThrow();
});

test('Turns: of a kind that has cost helpers no more wait than may be queued', async () => {
  const turns = makeTurns({ maxQueued: 10 });
  const fail = async (): Promise<never> => {
    throw new TokenFailure(lost('died'));
  };
  const tries = new Tries(1000);
  for (let left = 2; left > 0; left -= 1) await expect(tryOnce(turns, asked('a'), fail, tries)).rejects.toMatchObject({ failure: { kind: 'fault' } });
  const outcomes = await Promise.allSettled(Array.from({ length: 30 }, () => tryOnce(turns, asked('a'), fail)));
  const busy = outcomes.filter((outcome) => outcome.status === 'rejected' && isAgentError(outcome.reason, 'ERR_BUSY'));
  expect(busy).toHaveLength(19); // one is tried, and ten wait for it
});

test('Turns: a try that did not come to the token tells nobody that it cost a helper', async () => {
  let isDown = false;
  const turns = new Turns({ ...settings, timeoutMs: 3000 }, async () => {
    if (isDown) throw new TokenFailure(lost('died')); // what the token is down for, and long past
  });
  const tries = new Tries(1000);
  const fail = async (): Promise<never> => {
    throw new TokenFailure(lost('died'));
  };
  for (let left = 2; left > 0; left -= 1) await expect(tryOnce(turns, asked('a'), fail, tries)).rejects.toMatchObject({ failure: { kind: 'fault' } });
  isDown = true;
  const outcomes = await Promise.allSettled(Array.from({ length: 2 }, () => tryOnce(turns, asked('a'), fail)));
  const kinds = outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason.failure.kind : 'answered'));
  expect(kinds).toEqual(['fault', 'fault']);
});
