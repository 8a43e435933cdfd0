import type { ProviderStatus } from '../provider.ts';
import type { TokenLink } from './link.ts';
import { describeFailure } from './messages.ts';
import type { TokenSettings } from './settings.ts';

function errorOf({ state, lastFailure }: TokenLink): string | undefined {
  if (state === 'ok') return undefined;
  if (state === 'stopped') return 'the agent is locked';
  return lastFailure ? describeFailure(lastFailure) : state;
}

/** What `status` shows of a token. */
export function statusOf(link: TokenLink, { name, sessions }: TokenSettings): ProviderStatus {
  const { state, lastFailure, lastFailureTime, recoveries, connection } = link;
  const { info, abilities, pid, openSessions } = connection;
  const error = errorOf(link);
  return {
    name,
    kind: 'pkcs11',
    state: state === 'ok' || state === 'disabled' ? state : 'down',
    token: name,
    ...(error === undefined ? {} : { error }),
    hsm: {
      ...info,
      sessions,
      openSessions,
      recoveries,
      ...(abilities ? { mechanisms: [...abilities.works], refused: [...abilities.refused] } : {}),
      ...(lastFailure ? { lastError: describeFailure(lastFailure) } : {}),
      ...(lastFailureTime === undefined ? {} : { lastErrorTime: new Date(lastFailureTime).toISOString() }),
      ...(pid === undefined ? {} : { helperPid: pid }),
    },
  };
}
