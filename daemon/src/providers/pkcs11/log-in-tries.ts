import type { Failure } from './messages.ts';

/** Said of a token or session that went away: nobody has judged the PIN. A device that fails may have counted it. */
const absences: ReadonlySet<string> = new Set([
  'CKR_DEVICE_REMOVED',
  'CKR_TOKEN_NOT_PRESENT',
  'CKR_SESSION_CLOSED',
  'CKR_SESSION_HANDLE_INVALID',
  'CKR_CRYPTOKI_NOT_INITIALIZED',
]);

const isAbsence = (failure: Failure): failure is Extract<Failure, { kind: 'fault' }> =>
  failure.kind === 'fault' && failure.call === 'C_Login' && absences.has(failure.rv);

/** Whatever C_Login answers to a PIN that the token has never taken, unless it was not there: it may be a slip, and a card has three tries. */
export const refuseUntaken = (failure: Failure): Failure => (isAbsence(failure) ? failure : refuse(failure));

function refuse(failure: Failure): Failure {
  const isAnswered = failure.kind === 'logIn' || (failure.kind === 'fault' && failure.call === 'C_Login');
  return isAnswered ? { kind: 'pin', why: 'untaken', rv: failure.rv } : failure;
}

/** Waits before a log-in that was refused for no clear reason is tried again; then it is left to a person. */
const logInBackoffMs = [1000, 5000] as const;

/** Remembers how a token answered log-ins, because a real one counts them and locks. */
export class LogInTries {
  /** A PIN was refused, and nothing but a person tries one again. Outlives a stop. */
  refusal: Failure | undefined;
  /** Log-ins in a row that were refused for no clear reason, which a token may count. */
  #failures = 0;
  /** Counts beginnings by a person: a try from before one says nothing of what is tried since. */
  era = 0;

  /** Counts log-ins that failed for no clear reason; the last one is a refusal, and each of a PIN that was not `taken` before, which a sick device may have counted too; one that was away is sent it once more. */
  judge(failure: Failure, taken: boolean): Failure {
    if (!taken) return this.#judgeUntaken(failure);
    if (failure.kind !== 'logIn') return failure;
    this.#failures += 1;
    return this.#failures > logInBackoffMs.length ? { kind: 'pin', why: 'refused', rv: failure.rv } : failure;
  }

  #judgeUntaken(failure: Failure): Failure {
    if (!isAbsence(failure)) return refuse(failure);
    this.#failures += 1;
    return this.#failures > 1 ? refuse(failure) : { kind: 'logIn', rv: failure.rv };
  }

  /** How long the last one that `judge` let pass lasts at least. */
  get backoffMs(): number | undefined {
    return logInBackoffMs[this.#failures - 1];
  }

  /** Nothing is tried any more until a person does. A PIN that is only missing may be there at the next start. */
  refuse(failure: Failure): void {
    if (failure.kind === 'pin' && failure.why !== 'needed') this.refusal = failure;
  }

  /** A log-in succeeded. */
  succeed(): void {
    this.#failures = 0;
  }

  /** A person tries: what was refused before does not count. */
  begin(): void {
    this.era += 1;
    this.refusal = undefined;
    this.#failures = 0;
  }
}
