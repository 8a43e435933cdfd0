import { z } from 'zod';
import { type BindableFact, bindableFacts, type ExplainRule, explainRules, maxPolicyBytes } from '../names.ts';
import { aliasName, keyReference, openEnum, schemaOf, text, uuid } from '../schema.ts';

/**
 * Who is meant: `user:NAME`, `uid:N`, `group:NAME`, `gid:N`, `unit:NAME`, `user-unit:NAME`, `exe:/path` or `*`.
 * An object holds several that must all hold: `{"user": "web", "unit": "shop.service"}`.
 */
export type Principal = string | Record<string, string>;

/** How far an Allow goes. What is over a limit is answered as if the statement were not there, and says why. */
export interface PolicyLimits {
  /** Operations per second, of all callers of the statement together: 1 to 1,000,000. */
  perSecond?: number;
  /** Operations in total, until the policy is set again: 1 to 2^53 - 1. */
  total?: number;
  /** From and until, local time: `08:00-18:00`. `22:00-06:00` goes over midnight. */
  hours?: string;
}

/** One rule of a policy; of several that match, Deny wins. */
export interface PolicyStatement {
  /** A name for people, 1 to 128 bytes; `explain` answers it. */
  sid?: string;
  effect: 'Allow' | 'Deny';
  /** Any one suffices. */
  principals: Principal[];
  /** Method names, or the groups `use`, `view` and `manage`. */
  actions: string[];
  /** With Allow only. */
  limits?: PolicyLimits;
  /** With Allow only: a ciphertext that is made by this right opens only where these facts are the same. */
  bindAad?: BindableFact[];
}

/** Who may do what with a key. At most 256 statements and 32,768 bytes of JSON. */
export interface KeyPolicy {
  statements: PolicyStatement[];
}

const name = () => text({ min: 1, max: 4096 });

const limits = z.strictObject({
  perSecond: z.int().min(1).max(1_000_000).exactOptional(),
  total: z.int().min(1).max(Number.MAX_SAFE_INTEGER).exactOptional(),
  hours: z
    .string()
    .regex(/^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$/, 'must be like 08:00-18:00')
    .exactOptional(),
});

const statement = z
  .strictObject({
    sid: text({ min: 1, max: 128 }).exactOptional(),
    effect: z.enum(['Allow', 'Deny']),
    principals: z
      .array(z.union([name(), z.record(z.string(), name())]))
      .min(1)
      .max(256),
    actions: z
      .array(text({ min: 1, max: 128 }))
      .min(1)
      .max(128),
    limits: limits.exactOptional(),
    bindAad: z.array(z.enum(bindableFacts)).min(1).max(3).exactOptional(),
  })
  .superRefine((given, context) => {
    for (const field of ['limits', 'bindAad'] as const)
      if (given.effect === 'Deny' && given[field] !== undefined) context.addIssue({ code: 'custom', path: [field], message: 'goes with Allow only' });
  });

/** A policy in parameters: strict. */
export const keyPolicy = schemaOf<KeyPolicy>()(
  z
    .strictObject({ statements: z.array(statement).max(256) })
    .refine((policy) => Buffer.byteLength(JSON.stringify(policy)) <= maxPolicyBytes, `must be at most ${maxPolicyBytes} bytes`),
);

export interface SetKeyPolicyParams {
  keyId: string;
  policy: KeyPolicy;
}

/** The policy of a key as it is kept: users and groups are numbers. */
export interface KeyPolicyResult extends KeyPolicy {
  keyId: string;
  /** What a writer of policies should know, for example of an `exe:` that is an interpreter; with setKeyPolicy only. */
  warnings?: string[];
}

/** Whose rights are asked for. What is absent is taken from nobody: a caller of whom nothing else is known. */
export interface ExplainedCaller {
  uid?: number;
  groups?: number[];
  /** `nginx.service`, or `user-unit:NAME` for a unit of the user's own. */
  unit?: string;
  exe?: string;
}

export interface ExplainParams {
  /** Default: oneself. Somebody else is for whom the agent's policy lets, and of keys that the asker may describe; of others the answer is a denial. */
  caller?: ExplainedCaller;
  /** The method that would be called. */
  method: string;
  /** Default: the key that a call without one finds, that of the caller's service or the default key. */
  keyId?: string;
  /** The alias of updateAlias and deleteAlias, and of these only: the key that it stands for counts too. */
  aliasName?: string;
}

export interface ExplainResult {
  allowed: boolean;
  /** What decided. */
  rule: ExplainRule;
  sid?: string;
  /** Place of the deciding statement in its policy, from 0. */
  statementIndex?: number;
  /** Whether the call would get past the agent's state, the key's state, budget and limits, and its HSM. */
  wouldSucceed: boolean;
  /** What it would be answered; absent when it would succeed. */
  blockedBy?: string;
}

export const setKeyPolicyParams = schemaOf<SetKeyPolicyParams>()(z.strictObject({ keyId: uuid(), policy: keyPolicy }));

const statementResult = z.object({
  sid: z.string().exactOptional(),
  effect: openEnum(['Allow', 'Deny']),
  principals: z.array(z.union([z.string(), z.record(z.string(), z.string())])),
  actions: z.array(z.string()),
  limits: z.object({ perSecond: z.int().exactOptional(), total: z.int().exactOptional(), hours: z.string().exactOptional() }).exactOptional(),
  bindAad: z.array(openEnum(bindableFacts)).exactOptional(),
});

export const keyPolicyResult = schemaOf<KeyPolicyResult>()(
  z.object({ keyId: z.string(), statements: z.array(statementResult), warnings: z.array(z.string()).exactOptional() }),
);

const uid = () => z.int().min(0).max(4_294_967_294);

export const explainParams = schemaOf<ExplainParams>()(
  z.strictObject({
    caller: z
      .strictObject({
        uid: uid().exactOptional(),
        groups: z.array(uid()).max(65_536).exactOptional(),
        unit: text({ min: 1, max: 512 }).exactOptional(),
        exe: text({ min: 1, max: 4096 }).exactOptional(),
      })
      .exactOptional(),
    method: text({ min: 1, max: 64 }),
    keyId: keyReference().exactOptional(),
    aliasName: aliasName().exactOptional(),
  }),
);

export const explainResult = schemaOf<ExplainResult>()(
  z.object({
    allowed: z.boolean(),
    rule: openEnum(explainRules),
    sid: z.string().exactOptional(),
    statementIndex: z.int().exactOptional(),
    wouldSucceed: z.boolean(),
    blockedBy: z.string().exactOptional(),
  }),
);
