import { resolve } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { HelperProcess } from '../providers/pkcs11/helper.ts';
import { describeFailure, type OfferedToken, TokenFailure } from '../providers/pkcs11/messages.ts';
import { checkModuleFile } from '../providers/pkcs11/settings.ts';
import { formatTokenUri } from '../providers/pkcs11/uri.ts';

/** Milliseconds that a module may take to load and to show its tokens. */
const offerTimeoutMs = 30_000;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** What the settings would say of a token. */
const settingOf = (module: string, { label, serial }: OfferedToken): object => ({
  name: label.replace(/[^A-Za-z0-9._-]+/g, '-').slice(0, 64) || 'hsm',
  module,
  uri: formatTokenUri({ label, serial }),
});

/** Asks a module, in a helper of its own, what it offers. Nobody logs in. */
export async function askModule(module: string): Promise<{ library: string; tokens: readonly OfferedToken[] }> {
  const helper = new HelperProcess(1);
  try {
    return await helper.ask('offer', { module: checkModuleFile(module) }, offerTimeoutMs);
  } catch (error) {
    if (error instanceof TokenFailure) throw new AgentError('ERR_HSM_UNAVAILABLE', { hint: `${module}: ${describeFailure(error.failure)}` }, { cause: error });
    throw error;
  } finally {
    await helper.kill();
  }
}

function checkModule(module: string): void {
  try {
    checkModuleFile(module);
  } catch (cause) {
    throw new AgentError('ERR_STATE_CONFLICT', { hint: cause instanceof Error ? cause.message : String(cause) }, { cause });
  }
}

/** Shows the tokens of a module, and a configuration that is ready to be copied. */
export async function listTokens({ module: path, json }: { module: string; json?: boolean }): Promise<void> {
  const module = resolve(path);
  checkModule(module);
  const { library, tokens } = await askModule(module);
  const usable = tokens.filter(({ initialized }) => initialized);
  if (json)
    return say(
      JSON.stringify({
        module,
        library,
        tokens: tokens.map((token) => ({ ...token, uri: formatTokenUri(token) })),
        settings: { tokens: usable.map((token) => settingOf(module, token)) },
      }),
    );
  say(`${library} (${module})`);
  for (const { label, serial, manufacturer, model, firmware, initialized, mechanisms } of tokens) {
    if (!initialized) {
      say(`\n  a token that is not initialized (${model}): make it ready with the vendor's tool first`);
      continue;
    }
    say(`\n  ${label}  serial ${serial}, ${manufacturer} ${model}, firmware ${firmware}`);
    say(`    lists ${mechanisms.length === 0 ? 'no mechanism that is of use here' : mechanisms.join(' ')}`);
  }
  if (usable.length === 0) return say('\nThere is no token to use.');
  say('\nFor the settings file (kms-agent serve --config FILE):\n');
  say(JSON.stringify({ tokens: usable.map((token) => settingOf(module, token)) }, null, 2));
  say('\nThe PIN is asked for with kms unlock --token NAME; "pin": "vault", "keychain" or "credential:NAME" says where else it comes from.');
}
