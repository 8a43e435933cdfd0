import type {
  AddKeyslotParams,
  AddKeyslotResult,
  AgentStatus,
  AuditRecord,
  EmptyResult,
  ExplainParams,
  ExplainResult,
  ListKeyslotsResult,
  MethodName,
  MethodParams,
  MethodResult,
  MetricsResult,
  OpenRpcDocument,
  RemoveKeyslotParams,
  TailAuditParams,
  TailAuditResult,
  UnlockParams,
  WhoAmIResult,
} from '@kms-agent/protocol';
import { KeysClient } from './keys.ts';
import { type CallOptions, type ConnectOptions, Transport } from './transport.ts';

/**
 * Connects to an agent.
 * @throws AgentError `ERR_UNREACHABLE` when none answers; `ERR_TIMEOUT`; the signal's reason.
 */
export async function connect(options: ConnectOptions = {}): Promise<AgentClient> {
  const transport = new Transport(options);
  await transport.open(options.signal);
  return new AgentClient(transport);
}

/**
 * A connection to an agent, with one method for each of the protocol's. Any number of calls may run at a time.
 * Bytes of results own their memory. Every method throws AgentError `ERR_ACCESS_DENIED` when the caller may not, `ERR_AGENT_LOCKED`,
 * `ERR_INVALID_PARAMS` with `details.path`, and `ERR_TIMEOUT` or `ERR_DISCONNECTED` with `details.mayHaveRun`.
 */
export class AgentClient extends KeysClient implements AsyncDisposable {
  /** Says how the agent is. */
  status(options?: CallOptions): Promise<AgentStatus> {
    return this.transport.call('status', {}, options);
  }

  /** Says who the agent takes the caller for. */
  whoAmI(options?: CallOptions): Promise<WhoAmIResult> {
    return this.transport.call('whoAmI', {}, options);
  }

  /** Says whether a call would be allowed and would succeed, what decided, and what stands in its way. Changes nothing. */
  explain(params: ExplainParams, options?: CallOptions): Promise<ExplainResult> {
    return this.transport.call('explain', params, options);
  }

  /** Opens the vault. */
  unlock(params: UnlockParams = {}, options?: CallOptions): Promise<AgentStatus> {
    return this.transport.call('unlock', params, options);
  }

  /** Forgets every key until the next unlock. */
  lock(options?: CallOptions): Promise<AgentStatus> {
    return this.transport.call('lock', {}, options);
  }

  /** Says that the wall clock is right after a jump, so that destruction and expiry of keys go on. */
  confirmClock(options?: CallOptions): Promise<AgentStatus> {
    return this.transport.call('confirmClock', {}, options);
  }

  /** Answers figures in the Prometheus text exposition format. Access: administrators, and whom the agent policy lets. */
  metrics(options?: CallOptions): Promise<MetricsResult> {
    return this.transport.call('metrics', {}, options);
  }

  /** Answers records of what was asked and done. An empty answer is not the end: ask again after its `nextSeq` until that is its `endSeq`. Access: administrators. */
  tailAudit(params: TailAuditParams = {}, options?: CallOptions): Promise<TailAuditResult> {
    return this.transport.call('tailAudit', params, options);
  }

  /** Every record after `afterSeq` (default 0) that is there now, oldest first, page by page. Access: administrators. */
  async *listAllAuditRecords({ afterSeq = 0, ...rest }: TailAuditParams = {}, options?: CallOptions): AsyncGenerator<AuditRecord, void, undefined> {
    let [after, end] = [afterSeq, Number.POSITIVE_INFINITY];
    while (after < end) {
      const { records, nextSeq, endSeq } = await this.tailAudit({ ...rest, afterSeq: after }, options);
      end = Math.min(end, endSeq); // each call is recorded itself: without this the walk would never end
      yield* records.filter(({ seq }) => seq <= end);
      after = nextSeq;
    }
  }

  /** Lists the ways into the vault. */
  listKeyslots(options?: CallOptions): Promise<ListKeyslotsResult> {
    return this.transport.call('listKeyslots', {}, options);
  }

  /** Adds a way into the vault. */
  addKeyslot(params: AddKeyslotParams, options?: CallOptions): Promise<AddKeyslotResult> {
    return this.transport.call('addKeyslot', params, options);
  }

  /** Removes a way into the vault. */
  removeKeyslot(params: RemoveKeyslotParams, options?: CallOptions): Promise<EmptyResult> {
    return this.transport.call('removeKeyslot', params, options);
  }

  /** Answers the OpenRPC document of all methods. */
  discover(options?: CallOptions): Promise<OpenRpcDocument> {
    return this.transport.call('rpc.discover', {}, options);
  }

  /** Calls any method by its name on the wire. */
  call<M extends MethodName>(method: M, params: MethodParams<M>, options?: CallOptions): Promise<MethodResult<M>> {
    return this.transport.call(method, params, options);
  }

  /** Ends the connection; calls under way are rejected with `ERR_DISCONNECTED`. */
  close(): void {
    this.transport.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
