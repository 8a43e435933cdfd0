import { writeFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { decodePolicy, isAgentError } from '@kms-agent/protocol';
import fc from 'fast-check';
import { defaultSettings, readSettings, type Settings, settingsSchema } from '../../../daemon/src/config.ts';
import { checkTokens } from '../../../daemon/src/providers/pkcs11/settings.ts';
import { TempFolder } from '../../kit/agent.ts';
import { byteChanges, changeBytes, changeJson, jsonChanges } from '../mutation.ts';
import { arbitraryOf } from '../schema.ts';
import { must, prove, type Target } from '../target.ts';

const fields = Object.fromEntries(Object.entries(settingsSchema).map(([name, schema]) => [name, arbitraryOf(schema, '')]));
const file = fc.record({
  settings: fc.record(fields, { requiredKeys: [] }),
  changes: fc.oneof(fc.constant([]), jsonChanges),
  bytes: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, byteChanges),
});

/** Whether every setting is what its schema says. */
function checkRanges(settings: Settings): void {
  must(Object.isFrozen(settings), 'settings can be changed');
  must(Object.keys(settings).sort().join() === Object.keys(defaultSettings).sort().join(), `settings are ${Object.keys(settings).join()}`);
  for (const [name, schema] of Object.entries(settingsSchema)) {
    const value: unknown = settings[name as keyof Settings]; // the names are the same
    if (!('type' in schema)) must(schema.enum.includes(value as never), `${name} is ${String(value)}`);
    else if (schema.type === 'integer')
      must(Number.isInteger(value) && Number(value) >= schema.minimum && Number(value) <= schema.maximum, `${name} is ${String(value)}`);
    else must(typeof value === (schema.type === 'string' ? 'string' : 'object'), `${name} is ${String(value)}`);
  }
}

/** Whether the settings are what the file says: nothing of it is ignored or put right in silence. */
function checkSays(settings: Settings, text: string): void {
  const { tokens = [], $schema: _, ...said } = JSON.parse(text) as Partial<Settings> & { $schema?: string }; // it was taken as such
  for (const [name, value] of Object.entries(said))
    must(
      isDeepStrictEqual(settings[name as keyof Settings], value),
      `${name} is ${JSON.stringify(settings[name as keyof Settings])}, not ${JSON.stringify(value)}`,
    );
  for (const [index, token] of tokens.entries())
    must(isDeepStrictEqual({ ...settings.tokens[index], ...token }, { ...settings.tokens[index] }), `a token is ${JSON.stringify(settings.tokens[index])}`);
}

/** Settings files. */
export const settings: Target = {
  name: 'settings',
  promise: 'a settings file gives settings that are all in their range, or is refused by name',
  runs: 150,
  open: (stack) => {
    const folder = stack.use(new TempFolder());
    const path = folder.join('config.json');
    return prove(file, async ({ settings: wanted, changes, bytes }) => {
      const text = changeBytes(Buffer.from(JSON.stringify(changeJson(wanted, changes)) ?? ''), bytes);
      writeFileSync(path, text, { mode: 0o600 });
      try {
        const read = await readSettings(path, true);
        checkRanges(read);
        checkSays(read, text.toString());
        checkTokens(read.tokens);
        decodePolicy(read.policy);
      } catch (error) {
        const isNamed = isAgentError(error) && (error.details.hint ?? error.details.reason ?? '') !== '';
        must(
          isNamed && isAgentError(error, 'ERR_STATE_CONFLICT', 'ERR_INVALID_PARAMS'),
          `it fails with ${error instanceof Error ? error.stack : String(error)}`,
        );
      }
    });
  },
};
