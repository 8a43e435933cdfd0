import { basename, dirname, join } from 'node:path';
import { AgentError, decodePolicy, defaultMaxDepth, defaultMaxFrameBytes, isAgentError, type KeyPolicy, systemSocketPath } from '@kms-agent/protocol';
import { defaultKeychainTimeoutMs } from './os/keychain.ts';
import { checkAuthority } from './policy/policy.ts';
import { defaultTokenSettings, type TokenSettings } from './providers/pkcs11/settings.ts';
import { readTrusted } from './settings-file.ts';

/** Yes, no, or where the machine has what it takes; only a plain yes complains where it has not. */
type WhereThereIsOne = boolean | 'auto';

/** Every setting with its default; each is described in the operator's guide. Times are milliseconds but where a name says otherwise, sizes bytes, 0 means never. */
export const defaultSettings = {
  idleLockMs: 0,
  lockOnSuspend: 'auto' as WhereThereIsOne,
  lockOnScreenLock: 'auto' as WhereThereIsOne,
  unlockOnScreenUnlock: false,
  requestTimeoutMs: 30_000,
  lockTimeoutMs: 10_000,
  keychainTimeoutMs: defaultKeychainTimeoutMs,
  shutdownTimeoutMs: 5000,
  maxFrameBytes: defaultMaxFrameBytes,
  maxDepth: defaultMaxDepth,
  maxInFlight: 256,
  maxBatch: 256,
  maxConnections: 4096,
  maxConnectionsPerUid: 1024,
  reservedConnections: 16,
  maxUnreadBytes: 4_194_304,
  stalledReaderMs: 30_000,
  busyPollUs: 200,
  socketMode: 0o600,
  lookIntervalMs: 60_000,
  maxOffMs: 259_200_000,
  maxUsesPerVersion: 4_294_967_296,
  useBlockSize: 65_536,
  lockSettleMs: 1000,
  maxGenerations: 2,
  maxQueuedGenerations: 64,
  logLevel: 'info' as 'error' | 'warn' | 'info' | 'debug',
  maxUnreadLogBytes: 1_048_576,
  tokens: [] as readonly TokenSettings[],
  auditSync: 'batch' as 'batch' | 'each',
  auditMaxFileBytes: 67_108_864,
  auditMaxTotalBytes: 1_073_741_824,
  auditMinAgeMs: 0,
  auditReserveBytes: 1_048_576,
  auditCheckpointRecords: 1000,
  auditCheckpointMs: 1000,
  administrators: [] as readonly string[],
  policy: { statements: [] } as KeyPolicy,
};

/** Settings as they hold for the life of the process. */
export type Settings = Readonly<typeof defaultSettings>;

/** Where things are when nobody says otherwise. */
export interface Places {
  readonly dataDir: string;
  readonly socketPath: string;
  readonly auditDir: string;
  readonly configFile: string;
}

type Schema = Record<
  string,
  | { type: 'integer'; minimum: number; maximum: number }
  | { type: 'string'; enum: string[] }
  | { type: 'boolean' }
  | { enum: WhereThereIsOne[] }
  | { type: 'string'; pattern: string }
  | { type: 'array'; items: { type: 'string'; pattern: string } }
  | { type: 'object'; properties: { statements: { type: 'array' } }; required: string[]; additionalProperties: false }
  | { type: 'array'; items: { type: 'object'; properties: Record<string, object>; required: string[]; additionalProperties: false } }
>;

const integer = (minimum: number, maximum: number): Schema[string] => ({ type: 'integer', minimum, maximum });
const whereThereIsOne: Schema[string] = { enum: [true, false, 'auto'] };
const day = 86_400_000;
const week = 7 * day;

const tokenSchema: { readonly [K in keyof TokenSettings]: Schema[string] } = {
  name: { type: 'string', pattern: '^[A-Za-z0-9._-]{1,64}$' },
  module: { type: 'string', pattern: '^/' },
  uri: { type: 'string', pattern: '^pkcs11:' },
  pin: { type: 'string', pattern: '^(ask|vault|keychain|credential:[A-Za-z0-9._-]{1,128})$' },
  sessions: integer(1, 256),
  timeoutMs: integer(100, 600_000),
  generateTimeoutMs: integer(1000, 3_600_000),
  checkIntervalMs: integer(100, 86_400_000),
  maxQueued: integer(1, 1_048_576),
};

/** JSON Schema of the settings file. */
export const settingsSchema: { readonly [K in keyof Settings]: Schema[string] } = {
  idleLockMs: integer(0, week),
  lockOnSuspend: whereThereIsOne,
  lockOnScreenLock: whereThereIsOne,
  unlockOnScreenUnlock: { type: 'boolean' },
  requestTimeoutMs: integer(100, 3_600_000),
  lockTimeoutMs: integer(100, 600_000),
  keychainTimeoutMs: integer(100, 600_000),
  shutdownTimeoutMs: integer(100, 600_000),
  maxFrameBytes: integer(262_144, 16_777_216),
  maxDepth: integer(8, 256),
  maxInFlight: integer(1, 65_536),
  maxBatch: integer(1, 65_536),
  maxConnections: integer(1, 1_048_576),
  maxConnectionsPerUid: integer(1, 1_048_576),
  reservedConnections: integer(0, 1_048_576),
  maxUnreadBytes: integer(65_536, 1_073_741_824),
  stalledReaderMs: integer(100, 3_600_000),
  busyPollUs: integer(0, 1000),
  socketMode: integer(0, 0o666),
  lookIntervalMs: integer(10, 3_600_000),
  maxOffMs: integer(0, 31_622_400_000),
  maxUsesPerVersion: integer(16, 4_294_967_296),
  useBlockSize: integer(1, 1_048_576),
  lockSettleMs: integer(0, 60_000),
  maxGenerations: integer(1, 64),
  maxQueuedGenerations: integer(0, 65_536),
  logLevel: { type: 'string', enum: ['error', 'warn', 'info', 'debug'] },
  maxUnreadLogBytes: integer(4096, 1_073_741_824),
  tokens: { type: 'array', items: { type: 'object', properties: tokenSchema, required: ['name', 'module', 'uri'], additionalProperties: false } },
  auditSync: { type: 'string', enum: ['batch', 'each'] },
  auditMaxFileBytes: integer(4096, 1_073_741_824),
  auditMaxTotalBytes: integer(65_536, Number.MAX_SAFE_INTEGER),
  auditMinAgeMs: integer(0, 10 * 365 * day),
  auditReserveBytes: integer(4096, 1_073_741_824),
  auditCheckpointRecords: integer(1, 1_000_000),
  auditCheckpointMs: integer(10, 3_600_000),
  administrators: { type: 'array', items: { type: 'string', pattern: '^(user|uid|group|gid):' } },
  policy: { type: 'object', properties: { statements: { type: 'array' } }, required: ['statements'], additionalProperties: false },
};

/** A place, and what chose it. */
export interface Choice {
  readonly path: string;
  /** The name of a variable, or `default`. */
  readonly from: string;
}

/** The first variable that is set; else what the XDG base directories or the system have. */
function choose(env: NodeJS.ProcessEnv, variables: readonly string[], fallback: () => Choice): Choice {
  const from = variables.find((name) => env[name]);
  return from === undefined ? fallback() : { path: env[from] ?? '', from };
}

/** A folder of the XDG base directories (their specification's defaults where the variable is not set), and what is below it. */
function below(env: NodeJS.ProcessEnv, variable: string, standard: string, ...names: string[]): Choice {
  const base = env[variable];
  return { path: join(base || standard, ...names), from: base ? variable : 'default' };
}

/** The usual places, and what chose each: variables of ours, systemd's for a service, those of the XDG base directories for a user. */
export function choosePlaces(env: NodeJS.ProcessEnv, home: string): { readonly [K in keyof Places]: Choice } {
  return {
    dataDir: choose(env, ['KMS_AGENT_DATA_DIR', 'STATE_DIRECTORY'], () => below(env, 'XDG_DATA_HOME', join(home, '.local', 'share'), 'kms-agent')),
    auditDir: choose(env, ['KMS_AGENT_AUDIT_DIR', 'LOGS_DIRECTORY'], () => below(env, 'XDG_STATE_HOME', join(home, '.local', 'state'), 'kms-agent', 'audit')),
    socketPath: choose(env, ['KMS_AGENT_SOCK'], () =>
      env['XDG_RUNTIME_DIR'] ? below(env, 'XDG_RUNTIME_DIR', '', 'kms-agent', 'agent.sock') : { path: systemSocketPath, from: 'default' },
    ),
    configFile: choose(env, ['KMS_AGENT_CONFIG'], () => below(env, 'XDG_CONFIG_HOME', join(home, '.config'), 'kms-agent', 'config.json')),
  };
}

export function findPlaces(env: NodeJS.ProcessEnv, home: string): Places {
  const { dataDir, auditDir, socketPath, configFile } = choosePlaces(env, home);
  return { dataDir: dataDir.path, auditDir: auditDir.path, socketPath: socketPath.path, configFile: configFile.path };
}

/** The schema of a settings file, as editors and programs read it (JSON Schema draft-07). */
export function makeSettingsSchema(): Record<string, unknown> {
  const properties = Object.entries(settingsSchema).map(([name, schema]) => [name, { ...schema, default: defaultSettings[name as keyof Settings] }] as const);
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Settings of kms-agent',
    type: 'object',
    properties: { $schema: { type: 'string' }, ...Object.fromEntries(properties) },
    additionalProperties: false,
  };
}

/** conf's own dependency takes over a dozen signals when it is imported; they are given back. */
async function importConf(): Promise<typeof import('conf').default> {
  const before = new Map(process.eventNames().map((name) => [name, new Set(process.listeners(name as NodeJS.Signals))])); // names of signals and events alike
  const { default: Conf } = await import('conf');
  for (const name of process.eventNames()) {
    const known = before.get(name);
    for (const listener of process.listeners(name as NodeJS.Signals)) if (!known?.has(listener)) process.off(name, listener);
  }
  return Conf;
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Reads what a settings file says; nothing where it is not there and need not be.
 * @param user - as for readTrusted.
 * @throws AgentError `ERR_STATE_CONFLICT` that names an unknown or ill-typed setting, a file that cannot be seen, or a file or folder on the way to it that others can write.
 */
export async function readSettingsFile(file: string, required: boolean, user?: number): Promise<Partial<Settings>> {
  const found = readTrusted(file, user);
  if (!found) {
    if (required) throw new AgentError('ERR_STATE_CONFLICT', { hint: `There is no settings file ${file}. Put it back, or one with {} in it, for defaults.` });
    return {};
  }
  const { text, real } = found;
  if (/^\s*\{\s*\}\s*$/.test(text)) return {}; // as an installation leaves it: nothing to load conf for
  const Conf = await importConf();
  const options = {
    cwd: dirname(real),
    configName: basename(real), // whatever it ends in: another file must not be read in its place
    fileExtension: '',
    projectName: 'kms-agent',
    schema: { ...settingsSchema, $schema: { type: 'string' as const } },
    rootSchema: { additionalProperties: false },
    clearInvalidConfig: false,
  };
  try {
    if (!isObject(JSON.parse(text))) throw new TypeError('it is no JSON object'); // conf would take what an array holds for names
    const { store } = new Conf(options);
    if (JSON.stringify(store) !== JSON.stringify(JSON.parse(text))) throw new TypeError('it changed while it was read; try again'); // conf takes what has gone for empty
    const { $schema: _schema, ...said } = store as Partial<Settings> & { $schema?: string }; // the schema has checked it
    return said;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : 'it cannot be read';
    throw new AgentError('ERR_STATE_CONFLICT', { hint: `The settings in ${file} are not valid: ${reason}` }, { cause });
  }
}

/** Settings as they hold: defaults where the file says nothing. Frozen. */
export function completeSettings({ tokens = [], ...said }: Partial<Settings>): Settings {
  return Object.freeze({ ...defaultSettings, ...said, tokens: tokens.map((token) => Object.freeze({ ...defaultTokenSettings, ...token })) });
}

/** Checks what the schema of a file cannot say of administrators and policy. @throws AgentError `ERR_STATE_CONFLICT` that names file and place. */
function checkRights(file: string, { administrators, policy }: Settings): void {
  try {
    checkAuthority({ administrators, agentPolicy: decodePolicy(policy) });
  } catch (cause) {
    if (!isAgentError(cause)) throw cause;
    const { path = '', reason = cause.message } = cause.details;
    const place = path.startsWith('/statements') ? `/policy${path}` : path; // decodePolicy sees the policy alone
    throw new AgentError('ERR_STATE_CONFLICT', { hint: `The settings in ${file} are not valid: ${place} ${reason}` }, { cause });
  }
}

/** Reads the settings once and freezes them. @throws as readSettingsFile; AgentError `ERR_STATE_CONFLICT` for administrators and a policy that say nothing. */
export async function readSettings(file: string, required: boolean, user?: number): Promise<Settings> {
  const settings = completeSettings(await readSettingsFile(file, required, user));
  checkRights(file, settings);
  return settings;
}

/** Settings that a running agent takes over when it reads them again (SIGHUP); every other waits for a restart. */
export const reloadable: ReadonlySet<keyof Settings> = new Set(['logLevel', 'administrators', 'policy']);

/** Names of the settings that differ. */
export function findChanged(before: Settings, after: Settings): (keyof Settings)[] {
  const names = Object.keys(defaultSettings) as (keyof Settings)[]; // the keys of an object of that type
  return names.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
}
