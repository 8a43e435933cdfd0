import type { Audit } from '../audit/audit.ts';
import type { TimeSource } from '../keyring/clock.ts';
import type { Log } from '../log.ts';
import { credentialVersion, readCredential } from '../os/credentials.ts';
import type { Keychain } from '../os/keychain.ts';
import { describeFailure } from '../providers/pkcs11/messages.ts';
import { Pkcs11Provider } from '../providers/pkcs11/provider.ts';
import type { TokenSettings } from '../providers/pkcs11/settings.ts';

/** What the OS keychain calls the PIN of a token. */
const pinAccount = (token: string): string => `pin of token ${token}`;

/** Name of the credential that a setting names as the source of a PIN. */
const credentialOf = (source: string): string | undefined => (source.startsWith('credential:') ? source.slice('credential:'.length) : undefined);

/** What a token tells, and where its PIN may lie. */
export interface TokenSurroundings {
  readonly keychain: Keychain;
  readonly log: Log;
  readonly audit: Audit;
  readonly time: TimeSource;
}

/** Each change of a token's state is logged once: while it is down nobody needs to read of every call. */
export function makeTokenProvider(settings: TokenSettings, { keychain, log, audit, time }: TokenSurroundings): Pkcs11Provider {
  const { name } = settings;
  return new Pkcs11Provider({
    settings,
    readPin: async ({ pin }) => {
      if (pin === 'keychain') return await keychain.read(pinAccount(name));
      const credential = credentialOf(pin);
      return credential === undefined ? undefined : readCredential(credential);
    },
    pinVersion: ({ pin }) => {
      const credential = credentialOf(pin);
      return credential === undefined ? undefined : credentialVersion(credential);
    },
    savePin: async ({ pin: source }, pin) => {
      if (source === 'keychain') await keychain.write(pinAccount(name), pin);
    },
    onState: (state, failure) => {
      audit.note({ operation: 'token', outcome: failure ? 'failed' : 'ok', detail: { token: name, state } });
      if (failure) log.error('a token is out of reach', { token: name, state, detail: describeFailure(failure) });
      else log.info('a token changed its state', { token: name, state });
    },
    onNote: (note, level) => log[level](note),
    now: () => time.wall(),
  });
}
