import type { OfferedToken } from '../../providers/pkcs11/messages.ts';
import { checkTokens, matchOf, type TokenSettings } from '../../providers/pkcs11/settings.ts';
import { fits, formatTokenUri } from '../../providers/pkcs11/uri.ts';
import { askModule } from '../hsm-commands.ts';
import { wrong } from './finding.ts';

/** Looks at a token from outside: the agent alone knows how its sessions are. */
export async function lookAtToken(settings: TokenSettings): Promise<string> {
  checkTokens([settings]);
  const { tokens } = await askModule(settings.module);
  const fitting = tokens.filter((token: OfferedToken) => token.initialized && fits(token, matchOf(settings)));
  const [token] = fitting;
  if (!token) throw wrong('no token of the module fits its URI', `kms-agent hsm list --module ${settings.module} shows them`);
  if (fitting.length > 1) throw wrong(`${fitting.length} tokens fit its URI`, 'add the serial number');
  const advice = matchOf(settings).serial === undefined ? `; its uri names no serial number, better: ${formatTokenUri(token)}` : '';
  return `${token.label}, serial ${token.serial}, ${token.manufacturer} ${token.model}, firmware ${token.firmware}; lists ${token.mechanisms.join(' ')}${advice}`;
}
