import type { AgentError, MethodName, MethodParams, MethodResult } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';

/** What a front hands over: who calls, and the method with its decoded parameters. */
export interface Call<M extends MethodName = MethodName> {
  readonly caller: Caller;
  readonly method: M;
  readonly params: MethodParams<M>;
  /** Nobody reads the answer (a JSON-RPC notification); it runs and is audited all the same. */
  readonly notification: boolean;
}

/** What goes back to the front: a result in its typed form, which the front encodes, or an error. Exactly one of the two. */
export type Answer<M extends MethodName = MethodName> =
  | { readonly requestId: string; readonly result: MethodResult<M>; readonly error?: undefined }
  | { readonly requestId: string; readonly error: AgentError; readonly result?: undefined };

/** The one door from the fronts into the agent. Never throws and never rejects. */
export interface Dispatch {
  /** Calls that run now. */
  readonly inFlight: number;
  /** Runs a call to its end. */
  dispatch<M extends MethodName>(call: Call<M>): Promise<Answer<M>>;
  /** Answers what a front could not even decode; audited like any other refusal. */
  refuse(caller: Caller, error: AgentError, method?: string, notification?: boolean): Promise<Answer>;
}
