import { type choosePlaces, completeSettings, makeSettingsSchema, type Places, readSettings, readSettingsFile, reloadable, type Settings } from '../config.ts';
import { checkTokens } from '../providers/pkcs11/settings.ts';
import { checkServiceUserReads, findReader } from './service-user.ts';

/** Which file, and how to answer. */
export interface ConfigOptions {
  /** Where things are when no option says otherwise. */
  readonly usual: ReturnType<typeof choosePlaces>;
  readonly config: string;
  readonly required: boolean;
  readonly json?: boolean;
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const placeNames: Readonly<Record<keyof Places, string>> = { configFile: 'settings', dataDir: 'vault', auditDir: 'audit record', socketPath: 'socket' };

/** Prints every setting as it holds, and where it comes from; and the places, with what chose them. */
export async function showConfig({ usual: chosen, config, required, json }: ConfigOptions): Promise<void> {
  const said = await readSettingsFile(config, required, findReader(config));
  const settings = completeSettings(said);
  const places = { ...chosen, configFile: config === chosen.configFile.path ? chosen.configFile : { path: config, from: '--config' } };
  const rows = Object.entries(settings).map(([name, value]) => ({
    name,
    value,
    from: Object.hasOwn(said, name) ? 'file' : 'default',
    onReload: reloadable.has(name as keyof Settings),
  }));
  if (json) return say(JSON.stringify({ places, settings: rows }));
  for (const [name, { path, from }] of Object.entries(places)) say(`${placeNames[name as keyof Places].padEnd(24)}  ${path}  (${from})`);
  say('');
  for (const { name, value, from } of rows) say(`${name.padEnd(24)}  ${JSON.stringify(value)}  (${from})`);
}

/** Reads a settings file as serve would. @throws AgentError that names what is wrong. */
export async function checkSettings(config: string, required: boolean): Promise<void> {
  const { tokens } = await readSettings(config, required, findReader(config));
  checkTokens(tokens);
}

/** Says that a settings file is as it must be. @throws as checkSettings. */
export async function checkConfig({ config, required, json }: ConfigOptions): Promise<void> {
  await checkSettings(config, required);
  checkServiceUserReads(config);
  say(json ? JSON.stringify({ ok: true, config }) : `ok: ${config}`);
}

/** Prints the JSON schema of a settings file. */
export function printSchema(): void {
  say(JSON.stringify(makeSettingsSchema(), null, 2));
}
