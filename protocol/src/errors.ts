/** One row of the error table: the JSON-RPC number, the fixed text that goes over the wire, and whether the same call may succeed later. */
interface ErrorRow {
  readonly number: number;
  readonly message: string;
  readonly retryable: boolean;
}

const row = (number: number, message: string, retryable = false): ErrorRow => ({ number, message, retryable });

/**
 * Every error of the protocol. Messages are fixed texts and say what to do where the caller can do something;
 * no path, PIN, PKCS#11 text or name of another caller's key is ever put into them.
 * Numbers below -32000 are those of JSON-RPC 2.0, section 5.1; 19xx are made by the client and never sent.
 */
export const errors = {
  ERR_PARSE: row(-32700, 'The text is not valid JSON in UTF-8, or is nested too deeply.'),
  ERR_INVALID_REQUEST: row(-32600, 'The JSON is not a JSON-RPC 2.0 request.'),
  ERR_METHOD_NOT_FOUND: row(-32601, 'There is no such method; rpc.discover lists them.'),
  ERR_INVALID_PARAMS: row(-32602, 'A parameter is missing, unknown, of the wrong form, or does not apply; data.path names it.'),
  ERR_INTERNAL: row(-32603, 'The agent failed unexpectedly; its log has the details under the request id.'),
  ERR_AGENT_LOCKED: row(1001, 'The agent is locked; unlock it first (kms unlock).'),
  ERR_UNLOCK_FAILED: row(1002, 'No keyslot opened with this secret.'),
  ERR_NOT_INITIALIZED: row(1003, 'The agent has no vault yet; run kms-agent init.'),
  ERR_SHUTTING_DOWN: row(1004, 'The agent is stopping.', true),
  ERR_KEY_NOT_FOUND: row(1101, 'There is no such key.'),
  ERR_KEY_VERSION_NOT_FOUND: row(1102, 'The key has no such version.'),
  ERR_ALIAS_NOT_FOUND: row(1103, 'There is no such alias.'),
  ERR_ALREADY_EXISTS: row(1104, 'It exists already.'),
  ERR_KEY_DISABLED: row(1105, 'The key is disabled.'),
  ERR_KEY_PENDING_DELETION: row(1106, 'The key is scheduled for deletion.'),
  ERR_KEY_PENDING_IMPORT: row(1107, 'The key has no material yet; import it first.'),
  ERR_KEY_UNAVAILABLE: row(1108, 'The key cannot be reached in its token, or is not proven to be the same.', true),
  ERR_STATE_CONFLICT: row(1109, 'The state of the object does not allow this.'),
  ERR_DELETION_PROTECTED: row(1110, 'The key is protected against deletion; lift the protection first.'),
  ERR_UNSUPPORTED_OPERATION: row(1111, 'This type, spec, origin or usage of key cannot do that.'),
  ERR_UNSUPPORTED_ALGORITHM: row(1112, 'The algorithm is not for this key, or is not offered where the key lives.'),
  ERR_INVALID_CIPHERTEXT: row(1113, 'The ciphertext does not open with this key, IV and AAD.'),
  ERR_INVALID_KEY_MATERIAL: row(1114, 'The key material is not valid for this key.'),
  ERR_IMPORT_TOKEN_INVALID: row(1115, 'The import token is not valid for this key.'),
  ERR_IMPORT_TOKEN_EXPIRED: row(1116, 'The import token has expired; get new import parameters.'),
  ERR_LIMIT_EXCEEDED: row(1117, 'A quota or use budget is exhausted.'),
  ERR_HSM_UNAVAILABLE: row(1201, 'The token cannot be reached.', true),
  ERR_HSM_PIN_WRONG: row(1202, 'The token refused the PIN.'),
  ERR_HSM_PIN_LOCKED: row(1203, "The token's PIN is locked."),
  ERR_HSM_FAILED: row(1204, 'The token failed to do this.'),
  ERR_ACCESS_DENIED: row(1301, 'You may not do this.'),
  ERR_TOO_LARGE: row(1401, 'The message is larger than the limit.'),
  ERR_BUSY: row(1402, 'The agent is busy; try again later.', true),
  ERR_TIMEOUT: row(1403, 'The request did not finish in time.', true),
  ERR_RATE_LIMITED: row(1404, 'Too many requests; try again later.', true),
  ERR_AUDIT_UNAVAILABLE: row(1501, 'The audit record cannot be written, so the request was refused.'),
  ERR_STORE_UNAVAILABLE: row(1502, 'The vault cannot be written, so the change was not made.'),
  ERR_DISCONNECTED: row(1901, 'The connection to the agent was lost.', true),
  ERR_UNREACHABLE: row(1902, 'No agent answers on the socket; is it running?', true),
  ERR_SIGNATURE_INVALID: row(1903, 'The signature is not valid.'),
} as const satisfies Record<string, ErrorRow>;

/** A stable name from the error table, for example `ERR_KEY_NOT_FOUND`. */
export type ErrorCode = keyof typeof errors;

/** What an error may say besides its code. Fields of later versions are passed through. */
export interface ErrorDetails {
  /** JSON Pointer (RFC 6901) to the first bad field, with `ERR_INVALID_PARAMS`. */
  readonly path?: string;
  /** What is wrong with the field, with `ERR_INVALID_PARAMS`. A fixed text of the schema, never the value. */
  readonly reason?: string;
  /** Milliseconds after which trying again makes sense. */
  readonly retryAfterMs?: number;
  /** True when the request may have had its effect although no answer came (`ERR_TIMEOUT`, `ERR_DISCONNECTED`). */
  readonly mayHaveRun?: boolean;
  /** True when the change was made and only the record of its end failed. */
  readonly done?: boolean;
  /** The operation or flag that would serve instead. A fixed text. */
  readonly hint?: string;
  readonly [field: string]: unknown;
}

/** The `error` member of a JSON-RPC 2.0 response, as this protocol fills it. */
export interface WireError {
  readonly code: number;
  readonly message: string;
  readonly data: ErrorDetails & { readonly code: ErrorCode; readonly retryable: boolean; readonly requestId: string };
}

/** Marks an AgentError across copies of this package in one process. */
const brand = Symbol.for('kms-agent.AgentError');

/** The one error class of agent and client: a row of the table, and details that may leave the process. */
export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: ErrorDetails;
  /** Id under which the agent logged and audited the request; absent on errors made by the client. */
  readonly requestId?: string;

  /**
   * @param code - the row of the table.
   * @param details - fields for `data`; nothing secret, they go to the caller.
   * @param options - `cause` stays in the process; `requestId` as the agent gave it; `message` only where the peer sent one.
   */
  constructor(code: ErrorCode, details: ErrorDetails = {}, options: { cause?: unknown; requestId?: string; message?: string } = {}) {
    super(options.message ?? errors[code].message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = errors[code].retryable;
    this.details = details;
    if (options.requestId !== undefined) this.requestId = options.requestId;
    Object.defineProperty(this, brand, { value: true });
  }
}

/**
 * Says whether `error` is an AgentError, of any copy of this package, and with one of `codes` if any are given.
 */
export function isAgentError<C extends ErrorCode = ErrorCode>(error: unknown, ...codes: readonly C[]): error is AgentError & { readonly code: C } {
  if (typeof error !== 'object' || error === null || !(brand in error)) return false;
  return codes.length === 0 || codes.some((code) => 'code' in error && code === error.code);
}

/** Builds the `error` member of a response. */
export function encodeError(error: AgentError, requestId: string): WireError {
  const { number, message } = errors[error.code];
  return { code: number, message, data: { ...error.details, code: error.code, retryable: error.retryable, requestId } };
}

/**
 * Reads the `error` member of a response. A code this version does not know becomes `ERR_INTERNAL`, with the peer's message kept.
 */
export function decodeError(wire: { readonly code: number; readonly message: string; readonly data?: unknown }): AgentError {
  const data: Record<string, unknown> = typeof wire.data === 'object' && wire.data !== null ? { ...wire.data } : {};
  const { code, retryable: _, requestId, ...details } = data;
  const known = typeof code === 'string' && Object.hasOwn(errors, code) ? (code as ErrorCode) : 'ERR_INTERNAL';
  return new AgentError(known, details, { message: wire.message, ...(typeof requestId === 'string' ? { requestId } : {}) });
}
