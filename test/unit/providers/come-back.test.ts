import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { longestMs } from '../../../daemon/src/providers/pkcs11/backoff.ts';
import { ComeBack } from '../../../daemon/src/providers/pkcs11/come-back.ts';
import type { Failure } from '../../../daemon/src/providers/pkcs11/messages.ts';

test('hurry: a try that does not end, as of a keychain that asks a person, is waited for no longer than the one who asks may wait', async () => {
  const tried = Promise.withResolvers<Failure | undefined>();
  let tries = 0;
  const tryAgain = async (): Promise<Failure | undefined> => {
    tries += 1;
    return await tried.promise;
  };
  const comeBack = new ComeBack({ leastMs: () => undefined, tryAgain, waits: { next: () => 3_600_000, isSlow: true } });
  const running = comeBack.run({ kind: 'noToken', found: 0 });
  await delay(longestMs + 100); // else it was looked for just now
  await comeBack.hurry(10);
  await comeBack.hurry(10); // nor by the next one
  expect(tries).toBe(1);
  tried.resolve(undefined);
  await running;
});
