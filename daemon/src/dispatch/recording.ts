import type { AuditCaller } from '@kms-agent/protocol';
import type { AuditEntry } from '../audit/record.ts';
import type { Caller } from '../caller/identity.ts';

/** The id of the key that a request names by id, alias or blob, as far as there is one. */
export type FindKeyId = (params: { keyId?: string; aliasName?: string; ciphertextBlob?: Uint8Array }) => string | undefined;

/** A caller as the record names it: the process that connected, and of its unit and program what was asked for. */
export function describeCaller({ uid, gid, pid, process }: Caller): AuditCaller {
  return { uid, gid, ...(pid === undefined ? {} : { pid }), ...process.seen() };
}

const textOf = (from: object, field: string): string | undefined => {
  const value: unknown = (from as Record<string, unknown>)[field];
  return typeof value === 'string' ? value : undefined;
};

/** The key of a request: from its answer, else as far as its parameters tell. What names nothing is recorded as it was asked for. */
export function describeTarget(
  params: object | undefined,
  result: object | undefined,
  findKeyId: FindKeyId,
): Pick<AuditEntry, 'keyId' | 'keyVersionId' | 'sourceKeyId'> {
  const from = result && 'keyMetadata' in result && typeof result.keyMetadata === 'object' && result.keyMetadata ? result.keyMetadata : result;
  const keyId = (from && textOf(from, 'keyId')) ?? (params && (findKeyId(params) ?? textOf(params, 'keyId')));
  const keyVersionId = from && textOf(from, 'keyVersionId');
  const sourceKeyId = from && textOf(from, 'sourceKeyId');
  return {
    ...(keyId === undefined ? {} : { keyId }),
    ...(keyVersionId === undefined ? {} : { keyVersionId }),
    ...(sourceKeyId === undefined ? {} : { sourceKeyId }),
  };
}
