import { z } from 'zod';
import { schemaOf, text } from '../schema.ts';

/** `user:NAME`, `uid:N`, `group:NAME`, `gid:N`, `unit:NAME`, `user-unit:NAME`, `exe:/path` or `*`; an object holds several that must all hold. */
export type Principal = string | Record<string, string>;

/** One rule of a policy; of several that match, Deny wins. */
export interface PolicyStatement {
  sid?: string;
  effect: 'Allow' | 'Deny';
  /** Any one suffices. */
  principals: Principal[];
  /** Method names, or the groups `use`, `view` and `manage`. */
  actions: string[];
}

/** Who may do what with a key. */
export interface KeyPolicy {
  statements: PolicyStatement[];
}

const name = () => text({ min: 1, max: 4096 });

export const keyPolicy = schemaOf<KeyPolicy>()(
  z.strictObject({
    statements: z
      .array(
        z.strictObject({
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
        }),
      )
      .max(256),
  }),
);
