import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import type { AgentStatus } from '@kms-agent/protocol';
import { defaultSettings, findPlaces, readSettings, type Settings } from '../../config.ts';
import { readProtections } from '../../os/protections.ts';
import { checkTokens } from '../../providers/pkcs11/settings.ts';
import { systemPlaces } from '../install/host.ts';
import { checkServiceUserReads, findReader } from '../service-user.ts';
import { findAgentTokens } from './agent-tokens.ts';
import { lookAtClock, lookAtSystemClock } from './clock.ts';
import { lookAtAuditFolder, lookAtAuditRecord, lookAtSocket, lookAtVault } from './files.ts';
import { type Finding, look, wrong } from './finding.ts';
import { lookAtHost, lookAtOwnUnits } from './host.ts';
import { lookAtKeychain } from './keychain.ts';
import { askStatus } from './running-agent.ts';
import { lookAtToken } from './tokens.ts';

/** Where doctor looks. */
export interface DoctorOptions {
  readonly config: string;
  readonly configRequired: boolean;
  readonly dataDir: string;
  readonly auditDir: string;
  readonly socket: string;
  readonly json: boolean;
}

/** What a running agent says of itself, or what one would have that was started here now. */
async function lookAtAgent({ socket, auditDir }: DoctorOptions, { auditReserveBytes }: Settings): Promise<Finding[]> {
  let status: AgentStatus | undefined;
  const agent = await look('agent', async () => {
    status = await askStatus(socket);
    return status
      ? `version ${status.version} answers on ${socket}, ${status.state}`
      : `none runs on ${socket}; what follows is what one that is started now would have`;
  });
  if (!agent.ok) return [agent];
  if (status && !status.protections)
    return [agent, await look('protections', () => Promise.reject(wrong('the agent tells them to administrators only', 'run doctor as one, such as root')))];
  const protections = (status?.protections ?? readProtections()).map(({ name, on, detail = '' }) => ({ name: `protection ${name}`, ok: on, detail }));
  const record = await look('audit record', () => (status?.audit ? describeAudit(status.audit) : lookAtAuditRecord(auditDir, auditReserveBytes)));
  const answered = status;
  const clock = answered ? [await look('clock', () => lookAtClock(answered))] : [];
  return [agent, record, ...clock, ...protections, ...(answered ? findAgentTokens(answered) : [])];
}

function describeAudit({ state, seq }: NonNullable<AgentStatus['audit']>): string {
  if (state === 'ok') return `is written; record ${seq} is the last`;
  throw wrong('the agent cannot write it, and refuses requests until it can', 'make room in its folder, or see that it is writable; the log says why');
}

/** What starts the agent of a vault, where that is the system's or the user's own. */
async function lookAtService(dataDir: string): Promise<Finding[]> {
  if (dataDir === systemPlaces.dataDir) return await lookAtHost();
  return dataDir === findPlaces(process.env, homedir()).dataDir ? await lookAtOwnUnits() : [];
}

/** Says what is wrong with the agent, its files, settings and tokens, and how to mend each. @returns whether all is well. */
export async function doctor(options: DoctorOptions): Promise<boolean> {
  const { config, configRequired, dataDir, auditDir, socket, json } = options;
  let settings: Settings = defaultSettings;
  const readable = await look('settings', async () => {
    settings = await readSettings(config, configRequired, findReader(config));
    checkTokens(settings.tokens);
    checkServiceUserReads(config);
    return existsSync(config) ? config : `there are none in ${config}; defaults hold`;
  });
  const vault = await look('vault', () => lookAtVault(dataDir));
  const findings = [
    readable,
    vault,
    await look('audit folder', () => lookAtAuditFolder(auditDir)),
    ...(vault.ok ? [await look('keychain', () => lookAtKeychain(dataDir, settings.keychainTimeoutMs))] : []),
    await look('socket', () => lookAtSocket(socket, settings.socketMode, dataDir)),
    ...(await lookAtService(dataDir)),
    await look('system clock', () => lookAtSystemClock()),
    ...(await lookAtAgent(options, settings)),
  ];
  for (const token of settings.tokens) findings.push(await look(`token ${token.name}`, () => lookAtToken(token)));
  const ok = findings.every((finding) => finding.ok);
  process.stdout.write(json ? `${JSON.stringify({ ok, findings })}\n` : format(findings));
  return ok;
}

function format(findings: readonly Finding[]): string {
  return findings.map(({ name, ok, detail }) => `${ok ? 'ok   ' : 'WRONG'}  ${name}: ${detail}\n`).join('');
}
