import { TokenRig } from '../kit/softhsm.ts';
import type { Line } from './row.ts';
import type { Bench, Row } from './rows.ts';
import { measureRow } from './rows.ts';
import type { Thoroughness, Variant } from './run-load.ts';

const connectionCounts = [1, 4, 16, 64, 256];
const messageBytes = [32, 256, 1024, 4096, 16_384, 65_536];
const sessionCounts = [1, 2, 4, 8, 16];

/** How throughput and latency change with one number, everything else the same; no peers. */
export function curveRows({ agent, keys }: Bench): Row[] {
  const { socketPath } = agent;
  const point = (name: string, bytes: number, connections: number, inFlight: number): Variant => ({
    name,
    load: { work: { kind: 'frames', socketPath, operation: 'advanceEncrypt', keyId: keys.aes, bytes }, connections, inFlight },
  });
  return [
    {
      name: 'curve by bare frames: connections, each with one advanceEncrypt of 1 KiB in flight',
      variants: connectionCounts.map((count) => point(`${count}`, 1024, count, 1)),
      claims: [],
    },
    {
      name: 'curve by bare frames: bytes of a plaintext, 16 advanceEncrypt in flight',
      variants: messageBytes.map((bytes) => point(`${bytes.toLocaleString('en-US')} B`, bytes, 1, 16)),
      claims: [],
    },
  ];
}

/** Signatures in a token by the number of its sessions; each with a token and an agent of its own, as a number of sessions is a setting. */
export async function sessionCurve(thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  await using stack = new AsyncDisposableStack();
  const variants: Variant[] = [];
  for (const sessions of sessionCounts) {
    const rig = stack.use(await TokenRig.make({ overrides: { sessions } }));
    const { keyId } = await (await rig.client()).createKey({ keySpec: 'EC_P256', protectionLevel: 'HSM' });
    const work = { kind: 'frames', socketPath: rig.agent?.socketPath ?? '', operation: 'sign', keyId, bytes: 1024 } as const;
    variants.push({ name: `${sessions}`, load: { work, connections: 1, inFlight: 64 } });
  }
  return await measureRow({ name: 'curve by bare frames: sessions in SoftHSM, 64 sign EC_P256 in flight', variants, claims: [] }, thoroughness, onDone);
}
