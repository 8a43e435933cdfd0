import { Audit } from '../audit/audit.ts';
import type { TimeSource } from '../keyring/clock.ts';
import { Witness } from '../keyring/witness.ts';
import { describeError } from '../log.ts';
import { version } from '../os/own-package.ts';
import type { StartOptions } from './options.ts';

/** The audit record, and what compares it with the vault. */
export interface AuditParts {
  readonly audit: Audit;
  readonly witness: Witness;
}

/** Opens the audit record; without one nothing is served. */
export function openRecord({
  settings,
  auditFolder,
  acceptRollback,
  log,
  time,
}: Pick<StartOptions, 'settings' | 'auditFolder' | 'acceptRollback' | 'log'> & { time: TimeSource }): AuditParts {
  const audit = new Audit({
    folder: auditFolder,
    maxFileBytes: settings.auditMaxFileBytes,
    maxTotalBytes: settings.auditMaxTotalBytes,
    minAgeMs: settings.auditMinAgeMs,
    reserveBytes: settings.auditReserveBytes,
    checkpointRecords: settings.auditCheckpointRecords,
    checkpointMs: settings.auditCheckpointMs,
    sync: settings.auditSync === 'each',
    now: () => time.wall(),
    sinceBoot: () => time.sinceBoot(),
    onChange: (state, error) => {
      if (state === 'failed') log.error('the audit record cannot be written; requests are refused until it can', { detail: describeError(error) });
      else log.info('the audit record is written again');
    },
  });
  audit.note({ operation: 'start', outcome: 'ok', detail: { version } });
  const witness = new Witness({ audit, onWarning: (warning) => log.warn(warning), ...(acceptRollback === undefined ? {} : { acceptRollback }) });
  return { audit, witness };
}
