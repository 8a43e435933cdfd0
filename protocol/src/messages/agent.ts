import { z } from 'zod';
import type { AgentState, KeyslotType } from '../names.ts';
import { agentStates, keyslotTypes } from '../names.ts';
import { openEnum, type SecretText, schemaOf, secretText, text, timestamp, uuid } from '../schema.ts';

export const noParams = schemaOf<Record<string, never>>()(z.strictObject({}) as unknown as z.ZodType<Record<string, never>>); // {} in zod's words

/** A store of key material and how it is. */
export interface ProviderStatus {
  name: string;
  kind: string;
  state: 'ok' | 'down' | 'disabled';
  token?: string;
  error?: string;
  /** Of a token: what it says of itself and how it has been. */
  hsm?: TokenStatus;
}

/** A token, by its own words and by what was seen. */
export interface TokenStatus {
  label?: string;
  serial?: string;
  manufacturer?: string;
  model?: string;
  firmware?: string;
  /** Most sessions that work side by side. */
  sessions: number;
  /** Sessions that are open, that of the login among them, as the last answer of the helper had it. */
  openSessions?: number;
  /** What it was seen to do, and what it lists and does not do. */
  mechanisms?: string[];
  refused?: string[];
  recoveries: number;
  /** What failed last, mended or not, and when. */
  lastError?: string;
  lastErrorTime?: string;
  /** Process that has the vendor's module loaded. */
  helperPid?: number;
}
const tokenStatus = z.object({
  label: z.string().exactOptional(),
  serial: z.string().exactOptional(),
  manufacturer: z.string().exactOptional(),
  model: z.string().exactOptional(),
  firmware: z.string().exactOptional(),
  sessions: z.int(),
  openSessions: z.int().exactOptional(),
  mechanisms: z.array(z.string()).exactOptional(),
  refused: z.array(z.string()).exactOptional(),
  recoveries: z.int(),
  lastError: z.string().exactOptional(),
  lastErrorTime: timestamp().exactOptional(),
  helperPid: z.int().exactOptional(),
});

/** A protection of the process and whether it is really on. */
export interface ProtectionStatus {
  name: string;
  on: boolean;
  detail?: string;
}

export interface AgentStatus {
  version: string;
  protocolVersion: number;
  state: AgentState;
  /** From here on: for administrators only. */
  startTime?: string;
  unlockTime?: string;
  providers?: ProviderStatus[];
  protections?: ProtectionStatus[];
  counts?: { keys: number; connections: number; inFlight: number };
  audit?: { state: string; seq: number };
  warnings?: string[];
}
export const agentStatus = schemaOf<AgentStatus>()(
  z.object({
    version: z.string(),
    protocolVersion: z.int(),
    state: openEnum(agentStates),
    startTime: timestamp().exactOptional(),
    unlockTime: timestamp().exactOptional(),
    providers: z
      .array(
        z.object({
          name: z.string(),
          kind: z.string(),
          state: openEnum(['ok', 'down', 'disabled']),
          token: z.string().exactOptional(),
          error: z.string().exactOptional(),
          hsm: tokenStatus.exactOptional(),
        }),
      )
      .exactOptional(),
    protections: z.array(z.object({ name: z.string(), on: z.boolean(), detail: z.string().exactOptional() })).exactOptional(),
    counts: z.object({ keys: z.int(), connections: z.int(), inFlight: z.int() }).exactOptional(),
    audit: z.object({ state: z.string(), seq: z.int() }).exactOptional(),
    warnings: z.array(z.string()).exactOptional(),
  }),
);

/** Who the agent takes the caller for. */
export interface WhoAmIResult {
  uid: number;
  user?: string;
  gid: number;
  groups: number[];
  pid?: number;
  exe?: string;
  unit?: string;
  administrator: boolean;
  /** The alias of the key that is used when none is named. */
  defaultKey: string;
}
export const whoAmIResult = schemaOf<WhoAmIResult>()(
  z.object({
    uid: z.int(),
    user: z.string().exactOptional(),
    gid: z.int(),
    groups: z.array(z.int()),
    pid: z.int().exactOptional(),
    exe: z.string().exactOptional(),
    unit: z.string().exactOptional(),
    administrator: z.boolean(),
    defaultKey: z.string(),
  }),
);

const secret = () => text({ min: 1, max: 1024 });

export interface UnlockParams {
  /** Default: every slot that takes such a secret is tried. */
  keyslotId?: string;
  /** A passphrase, or the recovery code. */
  passphrase?: string;
  /** Name of the token to log in to. */
  token?: string;
  pin?: SecretText;
}
export const unlockParams = schemaOf<UnlockParams>()(
  z.strictObject({
    keyslotId: uuid().exactOptional(),
    passphrase: secret().exactOptional(),
    token: text({ min: 1, max: 128 }).exactOptional(),
    pin: secretText({ min: 1, max: 1024 }).exactOptional(),
  }),
);

/** One way into the vault. */
export interface Keyslot {
  keyslotId: string;
  type: KeyslotType;
  label: string;
  creationTime: string;
  lastUnlockTime?: string;
}
const keyslot = z.object({
  keyslotId: z.string(),
  type: openEnum(keyslotTypes),
  label: z.string(),
  creationTime: timestamp(),
  lastUnlockTime: timestamp().exactOptional(),
});

export interface ListKeyslotsResult {
  keyslots: Keyslot[];
}
export const listKeyslotsResult = schemaOf<ListKeyslotsResult>()(z.object({ keyslots: z.array(keyslot) }));

/** The secret of an existing slot, asked even while unlocked: a process that may add a slot owns every key. */
export interface Proof {
  keyslotId?: string;
  passphrase: string;
}
const proof = z.strictObject({ keyslotId: uuid().exactOptional(), passphrase: secret() });

export interface AddKeyslotParams {
  type: KeyslotType;
  /** At most 256 bytes. */
  label?: string;
  /** For type passphrase: at least 8 bytes. */
  passphrase?: string;
  token?: string;
  proof: Proof;
}
/** What a slot of a type needs and what it does not take: a caller must not believe that it was used. */
function checkSecrets({ type, passphrase, token }: AddKeyslotParams): { field: string; reason: string } | undefined {
  if (type === 'passphrase' && passphrase === undefined) return { field: 'passphrase', reason: 'is required for a passphrase keyslot' };
  if (type !== 'passphrase' && passphrase !== undefined) return { field: 'passphrase', reason: `does not apply to a ${type} keyslot` };
  if (type !== 'hsm' && token !== undefined) return { field: 'token', reason: `does not apply to a ${type} keyslot` };
  return undefined;
}

export const addKeyslotParams = schemaOf<AddKeyslotParams>()(
  z
    .strictObject({
      type: z.enum(keyslotTypes),
      label: text({ max: 256 }).exactOptional(),
      passphrase: text({ min: 8, max: 1024 }).exactOptional(),
      token: text({ min: 1, max: 128 }).exactOptional(),
      proof,
    })
    .superRefine((params, context) => {
      const wrong = checkSecrets(params);
      if (wrong) context.addIssue({ code: 'custom', path: [wrong.field], message: wrong.reason });
    }),
);

export interface AddKeyslotResult {
  keyslot: Keyslot;
  /** For type recovery: shown this once. */
  recoveryCode?: string;
}
export const addKeyslotResult = schemaOf<AddKeyslotResult>()(z.object({ keyslot, recoveryCode: z.string().exactOptional() }));

export interface RemoveKeyslotParams {
  keyslotId: string;
  proof: Proof;
}
export const removeKeyslotParams = schemaOf<RemoveKeyslotParams>()(z.strictObject({ keyslotId: uuid(), proof }));

/** Figures in the Prometheus text exposition format. */
export interface MetricsResult {
  contentType: string;
  text: string;
}
export const metricsResult = schemaOf<MetricsResult>()(z.object({ contentType: z.string(), text: z.string() }));

/** An answer without content. */
export type EmptyResult = Record<string, never>;
export const emptyResult = schemaOf<EmptyResult>()(z.object({}) as unknown as z.ZodType<EmptyResult>); // {} in zod's words

/** An OpenRPC 1.3 document. */
export type OpenRpcDocument = Record<string, unknown>;
export const openRpcDocument = schemaOf<OpenRpcDocument>()(z.record(z.string(), z.unknown()));
