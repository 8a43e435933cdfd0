import { AgentError, isAgentError } from '@kms-agent/protocol';
import { type Failure, TokenFailure } from './messages.ts';

const hintsOfPin = {
  wrong: 'The token refused the PIN and is not asked again by itself; give the right one with kms unlock --token.',
  locked: "Its security officer must set a new PIN with the vendor's tool.",
  finalTry: 'One try is left, which is kept for a person: kms unlock --token.',
  refused: 'The token refused to log in, kms status says how, and is not asked again by itself; once that is mended: kms unlock --token.',
  untaken:
    'The log-in to the token failed, and it has not taken this PIN before: it may be wrong, and is not tried again by itself. Check it, then kms unlock --token.',
  unread:
    'Somebody is logged in to the token already, and its module looks at no PIN then: this one was not used. It can be tried after kms lock, when other programs are logged out.',
  needed: 'Log in to the token first: kms unlock --token.',
} as const;

function asAgentError(failure: Failure, cause: TokenFailure): AgentError {
  const options = { cause };
  if (failure.kind === 'invalid') return new AgentError('ERR_INVALID_CIPHERTEXT', {}, options);
  if (failure.kind === 'key') return new AgentError('ERR_KEY_UNAVAILABLE', {}, options);
  if (failure.kind === 'otherMaterial')
    return new AgentError('ERR_INVALID_KEY_MATERIAL', { hint: 'The key had other material before; only the same may be imported again.' }, options);
  if (failure.kind === 'inTheWay')
    return new AgentError(
      'ERR_KEY_UNAVAILABLE',
      { hint: 'The token has another object under the id of this key, which is left as it is; kms status names it.' },
      options,
    );
  if (failure.kind === 'noWrappingKey')
    return new AgentError('ERR_IMPORT_TOKEN_INVALID', { hint: 'The token has no wrapping key for it any more; get new import parameters.' }, options);
  if (failure.kind === 'unsupported')
    return new AgentError('ERR_UNSUPPORTED_ALGORITHM', { hint: "The token does not do it; the agent's log names the mechanism." }, options);
  if (failure.kind === 'full')
    return new AgentError('ERR_LIMIT_EXCEEDED', { hint: 'The token has no room for another key; what it holds and nobody needs must go first.' }, options);
  if (failure.kind === 'failed') return new AgentError('ERR_HSM_FAILED', {}, options);
  if (failure.kind === 'otherToken')
    return new AgentError(
      'ERR_HSM_UNAVAILABLE',
      { hint: 'Another token is there under the same label, and is sent no PIN; kms status names both, and says how to take it for the other.' },
      options,
    );
  if (failure.kind !== 'pin') return new AgentError('ERR_HSM_UNAVAILABLE', {}, options);
  const code =
    failure.why === 'wrong' || failure.why === 'refused' || failure.why === 'untaken'
      ? 'ERR_HSM_PIN_WRONG'
      : failure.why === 'locked'
        ? 'ERR_HSM_PIN_LOCKED'
        : 'ERR_HSM_UNAVAILABLE';
  return new AgentError(code, { hint: hintsOfPin[failure.why] }, options);
}

/** Runs work on a token; what it answers becomes an error of the protocol, without a word of the module. */
export async function withAgentErrors<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof TokenFailure ? asAgentError(error.failure, error) : error;
  }
}

/** What cannot even be tried, because a file or a PIN cannot be read, is a failure like others. */
export function failureOf(error: unknown): Failure {
  if (error instanceof TokenFailure) return error.failure;
  return { kind: 'load', message: isAgentError(error) && error.details.hint ? error.details.hint : error instanceof Error ? error.message : String(error) };
}
