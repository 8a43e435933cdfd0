import { tailRecords } from '../audit/tail.ts';
import type { Handlers, OperationsContext } from './index.ts';

/** What was asked and done, for administrators. */
export function auditOperations({ audit, maxAnswerBytes }: OperationsContext): Pick<Handlers, 'tailAudit'> {
  return {
    tailAudit: async (_caller, params) => await tailRecords({ folder: audit.folder, endSeq: audit.seq, maxBytes: maxAnswerBytes }, params),
  };
}
