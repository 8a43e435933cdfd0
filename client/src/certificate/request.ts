import { createPublicKey } from 'node:crypto';
import type { SigningAlgorithm } from '@kms-agent/protocol';
import type { AgentClient } from '../client.ts';
import { encodeAlternativeNames } from './alternative-names.ts';
import { bitString, contextSet, nothing, objectId, sequence, setOf, smallInteger } from './der.ts';
import { encodeSubject } from './subject.ts';

/** What a certificate request asks for. */
export interface CertificateRequestParams {
  readonly keyId: string;
  /** A distinguished name as RFC 4514 writes it; may be empty where there are alternative names. */
  readonly subject: string;
  readonly dns: readonly string[];
  readonly ip: readonly string[];
}

/** How keys sign requests: what every certificate authority takes (RFC 5758 section 3.2, RFC 4055 section 5). */
const signatures: ReadonlyMap<string | undefined, { readonly algorithm: SigningAlgorithm; readonly identifier: Buffer }> = new Map([
  ['ec', { algorithm: 'ECDSA_SHA_256', identifier: sequence(objectId('1.2.840.10045.4.3.2')) }],
  ['rsa', { algorithm: 'RSA_PKCS1_SHA_256', identifier: sequence(objectId('1.2.840.113549.1.1.11'), nothing()) }],
]);

function encodeAttributes({ dns, ip }: CertificateRequestParams): Buffer {
  if (dns.length + ip.length === 0) return contextSet(0);
  const extensionRequest = objectId('1.2.840.113549.1.9.14'); // RFC 2985, section 5.4.2
  return contextSet(0, sequence(extensionRequest, setOf(sequence(encodeAlternativeNames(dns, ip)))));
}

function encodePem(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE REQUEST-----', ...lines, '-----END CERTIFICATE REQUEST-----', ''].join('\n');
}

/**
 * Makes a certificate request (PKCS #10, RFC 2986) for a key of the agent, signed by it.
 *
 * @returns PEM text.
 * @throws TypeError for a subject or names that are none, or when there are neither; AgentError as getPublicKey and sign.
 */
export async function requestCertificate(client: AgentClient, params: CertificateRequestParams): Promise<string> {
  const [subject, attributes] = [encodeSubject(params.subject), encodeAttributes(params)];
  if (params.subject.trim() === '' && params.dns.length + params.ip.length === 0) throw new TypeError('a request needs a subject, or names');
  const { publicKey, keyId, keyVersionId } = await client.getPublicKey({ keyId: params.keyId });
  const key = createPublicKey(publicKey);
  const signing = signatures.get(key.asymmetricKeyType);
  if (!signing) throw new TypeError(`a key of type ${key.asymmetricKeyType} signs no requests`);
  const information = sequence(smallInteger(0), subject, key.export({ type: 'spki', format: 'der' }), attributes);
  const { signature } = await client.sign({ keyId, keyVersionId, message: information, algorithm: signing.algorithm });
  return encodePem(sequence(information, signing.identifier, bitString(signature)));
}
