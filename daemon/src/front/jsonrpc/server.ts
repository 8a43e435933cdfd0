import {
  type AgentError,
  decodeParams,
  encodeError,
  encodeResult,
  isAgentError,
  isMethodName,
  type MethodName,
  type MethodResult,
  methodNames,
  AgentError as ProtocolError,
} from '@kms-agent/protocol';
import { JSONRPC, type JSONRPCErrorResponse, type JSONRPCID, type JSONRPCRequest, type JSONRPCResponse, JSONRPCServer } from 'json-rpc-2.0';
import type { Caller } from '../../caller/identity.ts';
import type { Call, Dispatch } from '../../dispatch/request.ts';
import type { Envelope, Response } from './envelope.ts';

/** An error that was answered. */
interface Refused {
  readonly requestId: string;
  readonly error: AgentError;
}

/** The response of an error (JSON-RPC 2.0, section 5.1). */
const respond = (id: JSONRPCID, { requestId, error }: Refused): JSONRPCErrorResponse => ({ jsonrpc: JSONRPC, id, error: encodeError(error, requestId) });

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
    this.#server.mapErrorToJSONRPCErrorResponse = (id, cause: unknown) =>
      respond(id, { requestId: '', error: new ProtocolError('ERR_INTERNAL', {}, { cause }) });
    for (const method of methodNames) this.#server.addMethodAdvanced(method, (request, context) => this.#run(method, request, context));
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
  async refuse(caller: Caller, error: AgentError, id: string | number | null = null, method?: string, notification = false): Promise<JSONRPCErrorResponse> {
    const answer = await this.#dispatch.refuse(caller, error, method, notification);
    return respond(id, { requestId: answer.requestId, error: answer.error ?? error });
  }

  async #run(method: MethodName, { id = null, params }: JSONRPCRequest, { caller, notification }: Context): Promise<JSONRPCResponse | null> {
    const call = this.#decode(method, params, caller, notification);
    const answer = isAgentError(call) ? await this.#dispatch.refuse(caller, call, method, notification) : await this.#dispatch.dispatch(call);
    const response = answer.error ? respond(id, answer) : this.#encode(id, caller, method, answer.result); // not awaited here: it nearly never waits
    return notification ? null : response;
  }

  /** A result that cannot be encoded is a fault of ours: the dispatcher logs and records it, and the caller hears only that. */
  #encode(id: JSONRPCID, caller: Caller, method: MethodName, result: MethodResult<MethodName>): JSONRPCResponse | Promise<JSONRPCResponse> {
    try {
      return { jsonrpc: JSONRPC, id, result: encodeResult(method, result) };
    } catch (cause) {
      return this.refuse(caller, new ProtocolError('ERR_INTERNAL', {}, { cause }), id, method);
    }
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
