import type { AgentStatus, ProviderStatus } from '@kms-agent/protocol';
import { describeCount, describeTime, formatPage, type PageLine } from './page.ts';

function describeLastError({ lastError, lastErrorTime }: NonNullable<ProviderStatus['hsm']>, nowMs: number): string | undefined {
  return lastError && `last error: ${lastError}${lastErrorTime === undefined ? '' : `, at ${describeTime(lastErrorTime, nowMs)}`}`;
}

function describeToken({ manufacturer, model, label, serial, firmware }: NonNullable<ProviderStatus['hsm']>, token: string | undefined): string {
  return [manufacturer, model, label ?? token, serial && `serial ${serial}`, firmware && `firmware ${firmware}`].filter(Boolean).join(' ');
}

function describeProvider({ name, kind, state, token, error, hsm }: ProviderStatus, nowMs: number): string {
  const what = hsm ? describeToken(hsm, token) : token;
  const sessions = hsm?.openSessions === undefined ? undefined : describeCount(hsm.openSessions, 'session');
  const trouble = [error, hsm && describeLastError(hsm, nowMs), hsm && hsm.recoveries > 0 && `recovered ${describeCount(hsm.recoveries, 'time')}`];
  return [`${name}: ${state}`, kind === name ? undefined : kind, what, sessions, ...trouble].filter(Boolean).join(', ');
}

/** What is not on is what matters. */
function describeProtections(protections: AgentStatus['protections'] = []): string | string[] {
  const off = protections.filter(({ on }) => !on);
  if (off.length === 0) return protections.length === 0 ? 'none' : `all ${protections.length} on`;
  return off.map(({ name, detail }) => `OFF: ${name}${detail === undefined ? '' : `, ${detail}`}`);
}

function describeState({ state, unlockTime }: AgentStatus, nowMs: number): string {
  if (state === 'UNLOCKED' && unlockTime !== undefined) return `${state} since ${describeTime(unlockTime, nowMs)}`;
  return state === 'LOCKED' ? `${state}: kms unlock opens it` : state === 'UNINITIALIZED' ? `${state}: kms-agent init makes a vault` : state;
}

function describeForAdministrators(status: AgentStatus, nowMs: number): PageLine[] {
  const { startTime, counts, providers, protections, audit, warnings } = status;
  if (startTime === undefined) return [];
  return [
    ['Started', describeTime(startTime, nowMs)],
    counts && ['Keys', String(counts.keys)],
    counts && ['Connections', `${counts.connections}, ${describeCount(counts.inFlight, 'request')} running`],
    providers && ['Providers', providers.map((provider) => describeProvider(provider, nowMs))],
    ['Protections', describeProtections(protections)],
    audit && ['Audit', `${audit.state}, ${describeCount(audit.seq, 'record')}`],
    ['Warnings', warnings && warnings.length > 0 ? warnings : 'none'],
  ];
}

/** An agent as a page that a person reads: where it is, how it is, what it holds, and what is wrong. The last is for administrators only. */
export function formatStatusPage(status: AgentStatus, address: string, nowMs: number): string {
  return formatPage([
    ['Agent', `${status.version}, protocol ${status.protocolVersion}`],
    ['Socket', address],
    ['State', describeState(status, nowMs)],
    ...describeForAdministrators(status, nowMs),
  ]);
}
