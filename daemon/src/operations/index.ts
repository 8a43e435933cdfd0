import type { MethodName, MethodParams, MethodResult } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import type { Agent } from '../keyring/agent.ts';
import { agentOperations } from './agent.ts';
import { aliasOperations } from './aliases.ts';
import { auditOperations } from './audit.ts';
import type { Authority } from './authority.ts';
import { cryptoOperations } from './crypto.ts';
import { keyOperations } from './keys.ts';
import { materialOperations } from './material.ts';
import { policyOperations } from './policies.ts';
import { versionOperations } from './versions.ts';

/** What runs a method. */
export type Handler<M extends MethodName> = (caller: Caller, params: MethodParams<M>) => Promise<MethodResult<M>> | MethodResult<M>;

/** One handler a method: a method of the protocol without one does not compile. */
export type Handlers = { readonly [M in MethodName]: Handler<M> };

/** What the operations need beside the keys. */
export interface OperationsContext {
  readonly agent: Agent;
  readonly version: string;
  /** Bytes that an answer may have; lists end earlier. */
  readonly maxAnswerBytes: number;
  readonly authority: Authority;
  /** What the front counts, for status. */
  readonly counts: () => { connections: number; inFlight: number };
  readonly audit: { readonly health: string; readonly seq: number; readonly folder: string };
  readonly metrics: () => Promise<{ contentType: string; text: string }>;
  /** The OpenRPC document. */
  readonly document: () => MethodResult<'rpc.discover'>;
  readonly protections: () => { name: string; on: boolean; detail?: string }[];
  readonly warnings: () => string[];
}

/** All handlers, over one agent. */
export function makeHandlers(context: OperationsContext): Handlers {
  return {
    ...cryptoOperations(context),
    ...keyOperations(context),
    ...aliasOperations(context),
    ...versionOperations(context),
    ...materialOperations(context),
    ...policyOperations(context),
    ...agentOperations(context),
    ...auditOperations(context),
  };
}
