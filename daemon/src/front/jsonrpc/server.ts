import {
  type AgentError,
  decodeParams,
  encodeError,
  encodeResult,
  isAgentError,
  isMethodName,
  type MethodName,
  methodNames,
  AgentError as ProtocolError,
} from '@kms-agent/protocol';
import { createJSONRPCErrorResponse, JSONRPCServer } from 'json-rpc-2.0';
import type { Caller } from '../../caller/identity.ts';
import type { Call, Dispatch } from '../../dispatch/request.ts';
import type { Envelope, Response } from './envelope.ts';

/** Carries an answered error through the library to where it becomes a response. */
class AnsweredError extends Error {
  readonly answer: { requestId: string; error: AgentError };

  constructor(answer: { requestId: string; error: AgentError }) {
    super(answer.error.code);
    this.answer = answer;
  }
}

interface Context {
  readonly caller: Caller;
  readonly notification: boolean;
}

/** Turns checked envelopes into calls of the dispatcher, and answers into responses. The owner of json-rpc-2.0 on this side. */
export class RpcServer {
  readonly #dispatch: Dispatch;
  readonly #server = new JSONRPCServer<Context>({ errorListener: () => undefined }); // the dispatcher has logged and recorded every error

  constructor(dispatch: Dispatch) {
    this.#dispatch = dispatch;
    this.#server.mapErrorToJSONRPCErrorResponse = (id, error: unknown) => {
      const { requestId, error: cause } =
        error instanceof AnsweredError ? error.answer : { requestId: '', error: new ProtocolError('ERR_INTERNAL', {}, { cause: error }) };
      const { code, message, data } = encodeError(cause, requestId);
      return createJSONRPCErrorResponse(id, code, message, data);
    };
    for (const method of methodNames) this.#server.addMethod(method, (params, context) => this.#run(method, params, context));
  }

  /** Runs one request. @returns its response; undefined for a notification. Never rejects. */
  async receive(envelope: Envelope, caller: Caller): Promise<Response | undefined> {
    const { id = null } = envelope;
    const notification = !Object.hasOwn(envelope, 'id');
    if (!isMethodName(envelope.method)) {
      const refused = await this.refuse(caller, new ProtocolError('ERR_METHOD_NOT_FOUND'), id, envelope.method, notification);
      return notification ? undefined : refused;
    }
    const response = await this.#server.receive(envelope, { caller, notification });
    return (response ?? undefined) as Response | undefined; // the library's type has id optional; with a checked envelope it is there
  }

  /** The response to what never became a call. */
  async refuse(caller: Caller, error: AgentError, id: string | number | null = null, method?: string, notification = false): Promise<Response> {
    const answer = await this.#dispatch.refuse(caller, error, method, notification);
    return { jsonrpc: '2.0', id, error: encodeError(answer.error ?? error, answer.requestId) };
  }

  async #run(method: MethodName, params: unknown, { caller, notification }: Context): Promise<unknown> {
    const call = this.#decode(method, params, caller, notification);
    const answer = isAgentError(call) ? await this.#dispatch.refuse(caller, call, method, notification) : await this.#dispatch.dispatch(call);
    if (answer.error) throw new AnsweredError({ requestId: answer.requestId, error: answer.error });
    try {
      return encodeResult(method, answer.result);
    } catch (cause) {
      throw new AnsweredError(await this.#refuseInternal(caller, method, cause));
    }
  }

  /** Something of ours is wrong: the dispatcher logs and records it, and the caller hears only that. */
  async #refuseInternal(caller: Caller, method: MethodName, cause: unknown): Promise<{ requestId: string; error: AgentError }> {
    const error = new ProtocolError('ERR_INTERNAL', {}, { cause });
    return { requestId: (await this.#dispatch.refuse(caller, error, method)).requestId, error };
  }

  /** @returns the call; what is wrong with its parameters, to be answered. */
  #decode(method: MethodName, params: unknown, caller: Caller, notification: boolean): Call | AgentError {
    try {
      return { caller, method, params: decodeParams(method, params), notification };
    } catch (error) {
      if (isAgentError(error)) return error;
      throw error;
    }
  }
}
