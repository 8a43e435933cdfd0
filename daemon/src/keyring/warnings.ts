import type { BelievableClock } from './clock.ts';
import type { OpenKeyring } from './open-keyring.ts';
import type { Witness } from './witness.ts';

/** Keys that a warning names. */
const namedKeys = 20;

/** What an administrator should know of the record and the keys; one line each. */
export function describeWarnings(clock: BelievableClock, witness: Witness, open: OpenKeyring | undefined): string[] {
  return [
    ...(clock.isBelievable() ? [] : describeClock(clock, open?.scheduler.waiting() ?? [])),
    ...witness.warnings,
    ...(open?.tokenWork.reports ?? []),
    ...[...(open?.scheduler.failing ?? [])].map(([keyId, code]) => `What is due for the key ${keyId} waits: ${code}.`),
    ...(open?.nearlySpent() ?? []).map((keyId) => `The key ${keyId} has a version that used three quarters of its encryptions.`),
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
