import { AgentError } from '@kms-agent/protocol';

/** One thing that is wrong with a vault. */
export type Finding =
  | { readonly what: 'record'; readonly kind: string; readonly id: string; readonly reason: string }
  | { readonly what: 'bucket'; readonly bucket: number; readonly reason: string }
  | { readonly what: 'head' | 'keyslots' | 'file'; readonly reason: string };

/** One line a finding, for a person. */
export function describeFinding(finding: Finding): string {
  if (finding.what === 'record') return `record ${finding.kind} ${finding.id} ${finding.reason}`;
  if (finding.what === 'bucket') return `bucket ${finding.bucket}: ${finding.reason}`;
  return `${finding.what}: ${finding.reason}`;
}

/** The vault is not what it was when it was written; it is not opened. Only administrators can meet this. */
export class VaultDamagedError extends AgentError {
  readonly findings: readonly Finding[];

  constructor(findings: readonly Finding[]) {
    const named = findings.slice(0, 20).map(describeFinding);
    super('ERR_STATE_CONFLICT', {
      hint: 'The vault was damaged or tampered with; restore a backup, or save the rest with kms-agent salvage.',
      findings: named,
      findingCount: findings.length,
    });
    this.findings = findings;
  }
}
