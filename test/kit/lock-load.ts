import { constants, randomBytes, verify } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, isAgentError } from '@kms-agent/client';

/** Keys that the load uses. */
export interface LoadKeys {
  readonly aes: readonly string[];
  readonly signing: readonly string[];
  readonly rsa: string;
}

/** What can be asked again and again. @returns whether the answer was right. */
type Work = (client: AgentClient) => Promise<boolean>;

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a).equals(b);

/** Clients that use keys while others lock and unlock. Every answer is checked; the only refusal that they may hear is ERR_AGENT_LOCKED. */
export class LockLoad {
  /** Answers that were right. */
  right = 0;
  /** Refusals for want of an open vault. */
  refused = 0;
  /** Everything else. */
  readonly wrong: string[] = [];
  /** Keys whose creation was answered. */
  readonly made: string[] = [];
  isResting = false;
  #isRunning = true;
  readonly #workers: Promise<void>[];
  readonly #keys: LoadKeys;
  readonly #publicKeys = new Map<string, string>();

  constructor(clients: readonly AgentClient[], keys: LoadKeys) {
    this.#keys = keys;
    const works: Work[] = [
      ...keys.aes.map((keyId) => (client: AgentClient) => this.#encrypt(client, keyId)),
      ...keys.signing.map((keyId) => (client: AgentClient) => this.#sign(client, keyId)),
      (client) => this.#decryptRsa(client),
      (client) => this.#create(client, { keySpec: 'EC_P256' }),
      (client) => this.#create(client, {}),
      (client) => this.#burst(client),
    ];
    this.#workers = clients.map((client, index) => this.#repeat(client, works[index % works.length] ?? ((busy) => this.#burst(busy))));
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    await Promise.all(this.#workers);
  }

  async #repeat(client: AgentClient, work: Work): Promise<void> {
    while (this.#isRunning) {
      if (this.isResting) await delay(5);
      else await this.#judge(work(client));
    }
  }

  async #judge(answer: Promise<boolean>): Promise<void> {
    try {
      if (await answer) this.right += 1;
      else this.wrong.push('a wrong answer');
    } catch (error) {
      if (!isAgentError(error, 'ERR_AGENT_LOCKED')) this.wrong.push(isAgentError(error) ? error.code : String(error));
      else this.refused += 1;
      await delay(2);
    }
  }

  async #encrypt(client: AgentClient, keyId: string): Promise<boolean> {
    const [plaintext, aad] = [randomBytes(100), randomBytes(10)];
    const sealed = await client.advanceEncrypt({ keyId, plaintext, aad });
    return same((await client.advanceDecrypt({ ...sealed, aad })).plaintext, plaintext);
  }

  /** Verified here, not by the agent. */
  async #sign(client: AgentClient, keyId: string): Promise<boolean> {
    const known = this.#publicKeys.get(keyId);
    const publicKey = known ?? (await client.getPublicKey({ keyId })).publicKey;
    this.#publicKeys.set(keyId, publicKey);
    const message = randomBytes(50);
    const { signature, algorithm } = await client.sign({ keyId, message });
    const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    return verify('sha256', message, { key: publicKey, ...(algorithm === 'RSA_PSS_SHA_256' ? pss : {}) }, signature);
  }

  async #decryptRsa(client: AgentClient): Promise<boolean> {
    const plaintext = randomBytes(32);
    const sealed = await client.encrypt({ keyId: this.#keys.rsa, plaintext });
    return same((await client.decrypt(sealed)).plaintext, plaintext);
  }

  async #create(client: AgentClient, params: Parameters<AgentClient['createKey']>[0]): Promise<boolean> {
    const { keyId } = await client.createKey(params);
    this.made.push(keyId);
    await delay(20);
    return true;
  }

  /** Many at once on one connection: each is answered for itself. */
  async #burst(client: AgentClient): Promise<boolean> {
    const [keyId = ''] = this.#keys.aes;
    await Promise.all(Array.from({ length: 30 }, () => this.#judge(this.#encrypt(client, keyId))));
    return true;
  }
}
