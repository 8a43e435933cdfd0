import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Quarantine } from '../../../daemon/src/providers/pkcs11/quarantine.ts';

/** Work that says when it begins, and ends when it is told to. */
function makeWork(begun: string[]): (name: string) => { readonly work: () => Promise<void>; readonly end: () => void } {
  return (name) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    return {
      work: async () => {
        begun.push(name);
        await promise;
      },
      end: resolve,
    };
  };
}

test('Quarantine: suspects run alone, and whoever waits has a turn after each', async () => {
  const quarantine = new Quarantine();
  const begun: string[] = [];
  const make = makeWork(begun);
  const [first, s1, s2, other, late] = [make('first'), make('s1'), make('s2'), make('other'), make('late')];
  const all = [
    quarantine.beside(first.work),
    quarantine.alone({}, s1.work),
    quarantine.alone({}, s2.work),
    quarantine.beside(other.work),
    quarantine.change(late.work),
  ];
  const then = async (end: () => void): Promise<string> => {
    end();
    await setImmediate();
    return begun.join(' ');
  };
  expect(await then(() => undefined)).toBe('first');
  expect(await then(first.end)).toBe('first s1');
  expect(await then(s1.end)).toBe('first s1 other');
  expect(await then(other.end)).toBe('first s1 other s2');
  expect(await then(s2.end)).toBe('first s1 other s2 late');
  late.end();
  await Promise.all(all);
});

test('Quarantine: a change does not begin while a suspect is expected, and nobody but a suspect waits for one that runs', async () => {
  const quarantine = new Quarantine();
  const begun: string[] = [];
  const make = makeWork(begun);
  const suspect = {};
  quarantine.expect(suspect);
  const [change, suspected, other, next] = [make('change'), make('suspected'), make('other'), make('next')];
  const changing = quarantine.change(change.work);
  await setImmediate();
  expect(begun).toEqual([]);
  quarantine.forget(suspect);
  await setImmediate();
  expect(begun).toEqual(['change']);
  const all = [quarantine.alone(suspect, suspected.work), quarantine.beside(other.work), quarantine.change(next.work)];
  await setImmediate();
  expect(begun).toEqual(['change', 'other']);
  for (const { end } of [change, other]) end();
  await changing;
  await setImmediate();
  expect(begun).toEqual(['change', 'other', 'suspected']);
  for (const { end } of [suspected, next]) end();
  await Promise.all(all);
});
