import { expect, test } from 'vitest';
import { SessionPool } from '../../../daemon/src/providers/pkcs11/process/pool.ts';
import type { Session } from '../../../daemon/src/providers/pkcs11/process/session.ts';

test('use: who waited and cannot open a session leaves the place to the next one', async () => {
  let opened = 0;
  const pool = new SessionPool(1, () => {
    opened += 1;
    if (opened === 2) throw new Error('no session');
    return { isPoisoned: false, close: () => undefined } as unknown as Session; // as far as a pool knows it
  });
  const gate = Promise.withResolvers<void>();
  const first = pool.use(() => gate.promise);
  const second = pool.use(() => 'second', true);
  const third = pool.use(() => 'third');
  gate.resolve();
  await first;
  await expect(second).rejects.toThrow('no session');
  expect(await third).toBe('third');
});
