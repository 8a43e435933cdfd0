import type { TestAgent } from '../kit/agent.ts';
import type { Claim, Line } from './row.ts';
import { judge } from './row.ts';
import { runInterleaved, type Thoroughness, type Variant } from './run-load.ts';
import type { LoadResult, WorkSpec } from './work/work.ts';

/** Loads that are compared with each other. */
export interface Row {
  readonly name: string;
  readonly variants: readonly Variant[];
  /** What ours must reach, each of them. */
  readonly claims: readonly Claim[];
}

/** What the rows are measured with. */
export interface Bench {
  readonly agent: TestAgent;
  readonly keys: { readonly ec: string; readonly rsa: string; readonly aes: string };
  readonly ssh?: { readonly socketPath: string; readonly keys: Record<'ecdsa' | 'rsa', { publicKey: string; keyType: string }> } | undefined;
  readonly gpg?: { readonly socketPath: string; readonly keygrip: string } | undefined;
  readonly echo: { readonly socketPath: string; readonly requestBytes: number; readonly answerBytes: number };
  readonly token?:
    | {
        readonly agent: TestAgent;
        readonly keyId: string;
        readonly direct: Variant['load']['work'];
        readonly env: NodeJS.ProcessEnv;
        readonly p11Kit?: Variant;
      }
    | undefined;
}

const load = (work: WorkSpec, connections: number, inFlight: number): Variant['load'] => ({ work, connections, inFlight });

/** Ours by bare frames, as every peer is asked, and as programs ask, through the client library. */
function oursOf({ socketPath }: TestAgent, operation: 'sign' | 'advanceEncrypt', keyId: string, inFlight: number): Variant[] {
  const work = { socketPath, operation, keyId, bytes: 1024 };
  return [
    { name: 'kms-agent, by bare frames', load: load({ kind: 'frames', ...work }, 1, inFlight) },
    { name: 'kms-agent, by its client library', load: load({ kind: 'agent', ...work }, 1, inFlight) },
  ];
}

/** The rows that are loads; start, many keys and many connections have pages of their own. */
export function loadRows({ agent, keys, ssh, gpg, echo, token }: Bench): Row[] {
  const ours = (operation: 'sign' | 'advanceEncrypt', keyId: string, inFlight: number): Variant[] => oursOf(agent, operation, keyId, inFlight);
  const sshVariants = (key: 'ecdsa' | 'rsa', shapes: readonly [number, number][]): Variant[] =>
    ssh
      ? shapes.map(([c, f]) => ({ name: `ssh-agent, ${c} × ${f}`, load: load({ kind: 'ssh-agent', socketPath: ssh.socketPath, ...ssh.keys[key] }, c, f) }))
      : [];
  const gpgVariants = (connections: number): Variant[] =>
    gpg ? [{ name: `gpg-agent, ${connections} × 1`, load: load({ kind: 'gpg-agent', ...gpg }, connections, 1) }] : [];
  const local = (operation: Extract<WorkSpec, { kind: 'crypto' }>['operation'], threads: boolean): Variant => ({
    name: `node:crypto in process, ${threads ? 'all cores' : 'one core'}`,
    load: load({ kind: 'crypto', operation, bytes: 1024, threads }, 1, threads ? 64 : 1),
  });
  const shapes: readonly [number, number][] = [
    [1, 64],
    [16, 4],
  ];
  const best = shapes.map(([c, f]) => `ssh-agent, ${c} × ${f}`);
  return [
    {
      name: 'sign EC_P256, 64 in flight',
      variants: [...ours('sign', keys.ec, 64), ...sshVariants('ecdsa', shapes), ...gpgVariants(16), local('sign EC_P256', true)],
      claims: [{ figure: 'perSecond', against: best, atLeast: 8 }],
    },
    {
      name: 'sign EC_P256, 1 in flight',
      variants: [...ours('sign', keys.ec, 1), ...sshVariants('ecdsa', [[1, 1]]), ...gpgVariants(1)],
      claims: [{ figure: 'p50Us', against: ['ssh-agent, 1 × 1'], atMost: 1 / 3 }],
    },
    {
      name: 'sign RSA_2048, 64 in flight',
      variants: [...ours('sign', keys.rsa, 64), ...sshVariants('rsa', shapes), local('sign RSA_2048', true)],
      claims: [
        { figure: 'perSecond', against: best, atLeast: 3 },
        { figure: 'perSecond', against: ['node:crypto in process, all cores'], atLeast: 0.75 },
      ],
    },
    {
      name: 'advanceEncrypt 1 KiB AES_256, 64 in flight',
      variants: [...ours('advanceEncrypt', keys.aes, 64), local('encrypt AES_256', false)],
      claims: [{ figure: 'perSecond', against: ['node:crypto in process, one core'], atLeast: 0.25 }],
    },
    {
      name: 'advanceEncrypt 1 KiB AES_256, 1 in flight',
      variants: [...ours('advanceEncrypt', keys.aes, 1), { name: 'echo of the same frames', load: load({ kind: 'echo', ...echo }, 1, 1) }],
      claims: [{ figure: 'p50Us', against: ['echo of the same frames'], atMost: 2.5 }],
    },
    ...(token ? [tokenRow(token)] : []),
  ];
}

function tokenRow({ agent, keyId, direct, env, p11Kit }: NonNullable<Bench['token']>): Row {
  const directName = 'pkcs11js in process, 8 sessions';
  return {
    name: 'sign EC_P256 in SoftHSM, 64 in flight',
    variants: [...oursOf(agent, 'sign', keyId, 64), { name: directName, load: load(direct, 8, 1), env }, ...(p11Kit ? [p11Kit] : [])],
    claims: [{ figure: 'perSecond', against: [directName], atLeast: 0.5 }],
  };
}

/** The figures of a load, as a line shows them. */
export const figuresOf = ({ perSecond, p50Us, p99Us, errors }: LoadResult): Line['figures'] => ({
  'per second': perSecond,
  'p50 µs': p50Us,
  'p99 µs': p99Us,
  errors,
});

/** Measures a row. */
export async function measureRow({ name, variants, claims }: Row, thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  const results = await runInterleaved(variants, thoroughness, onDone);
  return variants.map((variant) => {
    const result = results.get(variant.name);
    if (!result) throw new Error(`${variant.name} was not measured`);
    const isOurs = variant.load.work.kind === 'frames' || variant.load.work.kind === 'agent';
    const verdicts = !isOurs ? [] : claims.map((claim) => judge(claim, result, results)).filter((verdict) => verdict !== undefined);
    return { row: name, name: variant.name, figures: figuresOf(result), verdicts };
  });
}
