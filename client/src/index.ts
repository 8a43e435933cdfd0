export type * from '@kms-agent/protocol';
export { AgentError, type ErrorCode, type ErrorDetails, isAgentError, parseBlob } from '@kms-agent/protocol';
export * from './bytes.ts';
export { AgentClient, connect } from './client.ts';
export type { CallOptions, ConnectOptions } from './transport.ts';
