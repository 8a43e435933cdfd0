import { AgentError, isAgentError, parseBlob } from '@kms-agent/protocol';
import { Decrypter, Encrypter, type Identity, type Recipient, Stanza } from 'age-encryption';
import { utf8 } from '../bytes.ts';
import type { AgentClient } from '../client.ts';
import type { CallOptions } from '../transport.ts';

/** Type of the recipient stanza whose body is an advance blob of the file key. */
export const stanzaType = 'kms-agent';

/** Authenticated data of that blob: a file key opens as nothing else, and nothing else as a file key. */
export const stanzaAad = utf8('age-encryption.org/v1 kms-agent');

/** Which key wraps or unwraps the file key; without it the default key wraps, and the key that the blob names unwraps. */
export interface AgentKeyOptions extends CallOptions {
  readonly keyId?: string;
}

const fileKeyBytes = 16;

/** What the age-encryption package writes after the header for an empty payload: nonce (16) and one empty chunk with its tag (16). */
const emptyPayloadBytes = 32;

const chosen = (keyId: string | undefined): { keyId?: string } => (keyId === undefined ? {} : { keyId });

/** A recipient for the age-encryption package: wraps the file key with a key of the agent. */
export function agentRecipient(client: AgentClient, { keyId, ...options }: AgentKeyOptions = {}): Recipient {
  return {
    async wrapFileKey(fileKey: Uint8Array): Promise<Stanza[]> {
      const { ciphertextBlob } = await client.advanceEncrypt({ plaintext: fileKey, aad: stanzaAad, ...chosen(keyId) }, options);
      return [new Stanza([stanzaType], ciphertextBlob)];
    },
  };
}

/**
 * An identity for the age-encryption package: unwraps the file key in the agent. Of several stanzas the first that opens serves.
 * It answers null when none is for this agent, and throws what kept the agent from trying: `ERR_ACCESS_DENIED`, `ERR_KEY_DISABLED`, `ERR_UNREACHABLE`.
 */
export function agentIdentity(client: AgentClient, { keyId, ...options }: AgentKeyOptions = {}): Identity {
  return {
    async unwrapFileKey(stanzas: Stanza[]): Promise<Uint8Array | null> {
      const refusals: unknown[] = [];
      for (const { args, body } of stanzas) {
        if (args.length !== 1 || args[0] !== stanzaType || !parseBlob(body)) continue;
        try {
          const { plaintext } = await client.advanceDecrypt({ ciphertextBlob: body, aad: stanzaAad, ...chosen(keyId) }, options);
          if (plaintext.length === fileKeyBytes) return plaintext;
        } catch (error) {
          if (!isAgentError(error, 'ERR_INVALID_CIPHERTEXT')) refusals.push(error); // else the stanza is another agent's
        }
      }
      if (refusals.length > 0) throw refusals[0];
      return null;
    },
  };
}

/** A header, and the file key that the payload is encrypted with. */
export interface OpenHeader {
  readonly header: Uint8Array;
  readonly fileKey: Uint8Array;
}

/**
 * Makes a header with a fresh file key, wrapped for the agent's key and for each of `recipients`.
 * @throws TypeError for a recipient that is none; AgentError as advanceEncrypt.
 */
export async function makeHeader(client: AgentClient, recipients: readonly string[], options: AgentKeyOptions): Promise<OpenHeader> {
  const agent = agentRecipient(client, options);
  let fileKey: Uint8Array | undefined;
  const encrypter = new Encrypter();
  encrypter.addRecipient({
    wrapFileKey(key) {
      fileKey = key.slice();
      return agent.wrapFileKey(key);
    },
  });
  for (const recipient of recipients) addRecipient(encrypter, recipient);
  const file = await encrypter.encrypt(new Uint8Array(0));
  if (!fileKey) throw new TypeError('age-encryption did not ask the recipient');
  return { header: file.subarray(0, -emptyPayloadBytes), fileKey };
}

function addRecipient(encrypter: Encrypter, recipient: string): void {
  try {
    encrypter.addRecipient(recipient);
  } catch (cause) {
    throw new TypeError(`not an age recipient: ${recipient}`, { cause });
  }
}

/**
 * Opens a header: unwraps its file key and checks its MAC.
 * @throws AgentError `ERR_INVALID_CIPHERTEXT` when it is no header, was changed, or is not for this agent; what kept the agent from trying.
 */
export async function openHeader(client: AgentClient, header: Uint8Array, options: AgentKeyOptions): Promise<Uint8Array> {
  const decrypter = new Decrypter();
  decrypter.addIdentity(agentIdentity(client, options));
  try {
    return await decrypter.decryptHeader(header);
  } catch (error) {
    if (isAgentError(error) || options.signal?.aborted) throw error;
    throw new AgentError('ERR_INVALID_CIPHERTEXT', { hint: 'The header of the file is not for a key of this agent, or was changed.' }, { cause: error });
  }
}
