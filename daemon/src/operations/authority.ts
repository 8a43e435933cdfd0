import type { AgentError, ExplainRule, KeyPolicy, MethodName, MethodParams } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import type { Key } from '../keyring/key.ts';

/** Whether a request is allowed, and what decided. */
export interface Verdict {
  readonly allowed: boolean;
  readonly rule: ExplainRule;
  readonly sid?: string;
  readonly statementIndex?: number;
  /** The right is there, and one of its limits refuses now. */
  readonly limit?: AgentError;
}

/** What operations ask of the policy. */
export interface Authority {
  isAdministrator(caller: Caller): boolean;
  /** What would be decided about a request. Changes nothing. */
  judge<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): Verdict;
  /** The keys whose policies decide about a request, undefined for one that is not there, `own` for that of the caller's service before its first use; none for a method without a key. */
  keysFor<M extends MethodName>(caller: Caller, method: M, params: MethodParams<M>): (Key | undefined | 'own')[];
  /** Whether a list shows this key to the caller. */
  mayDescribe(caller: Caller, key: Key): boolean;
  /** The policy of a key, its default if nobody set one. */
  policyOf(key: Key): KeyPolicy;
  /** A policy as it is kept, users and groups by number, checked whole. @throws AgentError `ERR_INVALID_PARAMS` with `path`, `ERR_UNSUPPORTED_OPERATION`. */
  prepare(policy: KeyPolicy): { policy: KeyPolicy; warnings: string[] };
  /** The facts that the caller's right puts under the seal of what it encrypts. @throws AgentError `ERR_ACCESS_DENIED` when they are not known. */
  bind(caller: Caller, key: Key, action: 'advanceEncrypt'): { readonly bound: number; readonly facts: Uint8Array } | undefined;
  /** The facts that a ciphertext asks for, of this caller; undefined when they are not known. */
  openBound(caller: Caller, bound: number): Uint8Array | undefined;
}
