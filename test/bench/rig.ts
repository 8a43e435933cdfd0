import { randomBytes } from 'node:crypto';
import { connect as connectSocket } from 'node:net';
import { connect } from '@kms-agent/client';
import { initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { hasSoftHsm, pin, softHsmModule, TokenRig } from '../kit/softhsm.ts';
import type { Peers } from './peers.ts';
import type { Bench } from './rows.ts';

/** An agent as people run it: a vault in a folder, the audit record, the policy of every key. */
export async function serveAgent(stack: AsyncDisposableStack): Promise<TestAgent> {
  const folder = stack.use(new TempFolder());
  await initVault(folder);
  const agent = stack.use(await TestAgent.serve(folder));
  await (await agent.client()).unlock({ passphrase });
  return agent;
}

/** Starts our agent and every peer that is installed. */
export async function makeBench(stack: AsyncDisposableStack, peers: Peers): Promise<Bench> {
  const agent = await serveAgent(stack);
  const kms = await agent.client();
  const keys = {
    ec: (await kms.createKey({ keySpec: 'EC_P256' })).keyId,
    rsa: (await kms.createKey({ keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' })).keyId,
    aes: (await kms.createKey({})).keyId,
  };
  const { requestBytes, answerBytes } = await frameSizes(agent.socketPath, keys.aes);
  return {
    agent,
    keys,
    ssh: await peers.sshAgent(),
    gpg: await peers.gpgAgent(),
    echo: { ...(await peers.echo(answerBytes)), requestBytes, answerBytes },
    token: hasSoftHsm ? await makeToken(stack, peers) : void peers.missing.push('SoftHSM'),
  };
}

/** How long the frames of one encryption of 1 KiB are. */
async function frameSizes(socketPath: string, keyId: string): Promise<{ requestBytes: number; answerBytes: number }> {
  const request = `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'advanceEncrypt', params: { keyId, plaintext: randomBytes(1024).toString('base64') } })}\n`;
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const socket = connectSocket(socketPath, () => socket.write(request));
  let length = 0;
  socket.on('error', reject);
  socket.on('data', (chunk: Buffer) => {
    length += chunk.length;
    if (chunk.at(-1) === 0x0a) resolve(length);
  });
  const answerBytes = await promise;
  socket.destroy();
  return { requestBytes: request.length, answerBytes };
}

async function makeToken(stack: AsyncDisposableStack, peers: Peers): Promise<Bench['token']> {
  const rig = stack.use(await TokenRig.make());
  if (!rig.agent) return undefined;
  const kms = await connect({ socketPath: rig.agent.socketPath });
  const { keyId, primaryKeyVersionId } = await kms.createKey({ keySpec: 'EC_P256', protectionLevel: 'HSM' });
  const { publicKey } = await kms.getPublicKey({ keyId });
  kms.close();
  const direct = { kind: 'pkcs11', module: softHsmModule, label: 'hsm', pin, id: primaryKeyVersionId.replaceAll('-', ''), publicKey } as const;
  const p11Kit = await peers.p11Kit(softHsmModule, 'hsm', rig.hsm.env);
  return {
    agent: rig.agent,
    keyId,
    direct,
    env: rig.hsm.env,
    ...(p11Kit && {
      p11Kit: { name: 'p11-kit server, 8 sessions', load: { work: { ...direct, module: p11Kit.module }, connections: 8, inFlight: 1 }, env: p11Kit.env },
    }),
  };
}
