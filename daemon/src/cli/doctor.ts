import { AgentError, isAgentError } from '@kms-agent/protocol';
import { readSettings, type Settings } from '../config.ts';
import type { OfferedToken } from '../providers/pkcs11/messages.ts';
import { checkTokens, matchOf, type TokenSettings } from '../providers/pkcs11/settings.ts';
import { fits } from '../providers/pkcs11/uri.ts';
import { askModule } from './hsm-commands.ts';

/** One thing that was looked at, and what to do where it is not as it should be. */
interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

const describe = (error: unknown): string =>
  isAgentError(error) ? (error.details.hint ?? error.message) : error instanceof Error ? error.message : String(error);

async function look(name: string, work: () => Promise<string> | string): Promise<Finding> {
  try {
    return { name, ok: true, detail: await work() };
  } catch (error) {
    return { name, ok: false, detail: describe(error) };
  }
}

const none = (found: number): string =>
  found === 0 ? 'no token of the module fits its URI; kms-agent hsm list shows them' : `${found} tokens fit its URI; add the serial number`;

/** Looks at a token from outside: the agent alone knows how its sessions are. */
async function lookAtToken(settings: TokenSettings): Promise<string> {
  checkTokens([settings]);
  const { tokens } = await askModule(settings.module);
  const fitting = tokens.filter((token: OfferedToken) => token.initialized && fits(token, matchOf(settings)));
  const [token] = fitting;
  if (!token || fitting.length > 1) throw new AgentError('ERR_HSM_UNAVAILABLE', { hint: none(fitting.length) });
  return `${token.label}, serial ${token.serial}, ${token.manufacturer} ${token.model}, firmware ${token.firmware}; lists ${token.mechanisms.join(' ')}`;
}

/** Says what is wrong with the settings and the tokens, and how to mend it. @returns whether all is well. */
export async function doctor({ config, required, json }: { config: string; required: boolean; json?: boolean }): Promise<boolean> {
  const findings: Finding[] = [];
  let settings: Settings | undefined;
  findings.push(
    await look('settings', async () => {
      settings = await readSettings(config, required);
      checkTokens(settings.tokens);
      return config;
    }),
  );
  for (const token of settings?.tokens ?? []) findings.push(await look(`token ${token.name}`, () => lookAtToken(token)));
  const ok = findings.every((finding) => finding.ok);
  if (json) process.stdout.write(`${JSON.stringify({ ok, findings })}\n`);
  else for (const finding of findings) process.stdout.write(`${finding.ok ? 'ok   ' : 'WRONG'}  ${finding.name}: ${finding.detail}\n`);
  if (!json && settings?.tokens.length) process.stdout.write('\nHow a running agent finds its tokens, sessions and last errors: kms status\n');
  return ok;
}
