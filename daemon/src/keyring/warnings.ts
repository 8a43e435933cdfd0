import type { BelievableClock } from './clock.ts';
import type { OpenKeyring } from './open-keyring.ts';
import type { Witness } from './witness.ts';

/** Keys that a warning names. */
const namedKeys = 20;

/** Keys as a warning names them: an answer must not grow with what is wrong. */
function nameSome(keyIds: readonly string[]): string {
  const more = keyIds.length > namedKeys ? ` and ${keyIds.length - namedKeys} more` : '';
  return (keyIds.length === 1 ? 'the key ' : `${keyIds.length} keys: `) + keyIds.slice(0, namedKeys).join(', ') + more;
}

/** What is due and cannot be done, a line for each cause. @param failing - codes by key. */
function describeFailing(failing: ReadonlyMap<string, string>): string[] {
  const byCode = Map.groupBy(failing, ([, code]) => code);
  return [...byCode].map(([code, keys]) => `What is due waits with ${code} for ${nameSome(keys.map(([keyId]) => keyId))}.`);
}

/** @param keyIds - keys with a version that used three quarters of what it may encrypt. */
function describeSpent(keyIds: readonly string[]): string[] {
  return keyIds.length === 0 ? [] : [`Three quarters of the encryptions of a version are used, of ${nameSome(keyIds)}.`];
}

/** What an administrator should know of the record and the keys; few lines, however many keys there are. */
export function describeWarnings(clock: BelievableClock, witness: Witness, open: OpenKeyring | undefined): string[] {
  return [
    ...(clock.isBelievable() ? [] : describeClock(clock, open?.scheduler.waiting() ?? [])),
    ...witness.warnings,
    ...(open?.tokenWork.reports ?? []),
    ...describeFailing(open?.scheduler.failing ?? new Map()),
    ...describeSpent(open?.nearlySpent() ?? []),
  ];
}

/** What waits for an administrator's word about time. */
function describeClock(clock: BelievableClock, waiting: readonly string[]): string[] {
  const jumpMs = clock.observe();
  const more = waiting.length > namedKeys ? ` and ${waiting.length - namedKeys} more` : '';
  const due = waiting.length === 0 ? 'Nothing is due now.' : `Due now, and done as soon as that is said: ${waiting.slice(0, namedKeys).join(', ')}${more}.`;
  const jump = `The wall clock jumped by ${Math.round(jumpMs / 60_000)} minutes; destruction and expiry of keys wait until it is right or confirmed (kms confirm-clock).`;
  const restored = 'The vault was put back from older records; destruction and expiry of keys wait until an administrator allows them (kms confirm-clock).';
  return [...(jumpMs === 0 ? [] : [`${jump} ${due}`]), ...(clock.isUnconfirmed ? [`${restored} ${due}`] : [])];
}
