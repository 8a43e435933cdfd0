import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { AgentClient, GetPublicKeyParams } from '@kms-agent/client';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { requestCertificate } from '../../client/src/certificate/request.ts';
import { encodeSubject } from '../../client/src/certificate/subject.ts';
import { cleanEnv, type Finished, kmsProgram, run, TempFolder, TestAgent } from '../kit/agent.ts';

let agent: TestAgent;
let folder: TempFolder;
beforeAll(async () => {
  agent = await TestAgent.dev();
  folder = new TempFolder();
  const kms = await agent.client();
  for (const keySpec of ['EC_P256', 'EC_P256K', 'RSA_2048', 'RSA_3072'] as const)
    await kms.createKey({ keySpec, keyUsage: 'SIGN_VERIFY', aliasName: `alias/${keySpec}` });
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const csr = (...args: readonly string[]): Promise<Finished> => run(kmsProgram, ['csr', ...args], { env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }) });

/** What OpenSSL says of a request. */
function openssl(input: Uint8Array, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('openssl', ['req', '-noout', ...args], { input, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout + stderr;
}

test.each(['EC_P256', 'EC_P256K', 'RSA_2048', 'RSA_3072'])('csr with a key of %s: OpenSSL verifies it, and signs a certificate for it', async (spec) => {
  const names = ['--dns', 'shop.example', '--dns', '*.shop.example', '--dns', 'köln.example', '--ip', '192.0.2.7', '--ip', '2001:db8::7'];
  const { stdout } = await csr('-k', `alias/${spec}`, '--subject', 'CN=shop.example,O=Example\\, Inc.,C=DE', ...names);
  expect(openssl(stdout, '-verify')).toMatch(/verify OK/);
  expect(openssl(stdout, '-subject', '-nameopt', 'RFC2253').trim()).toBe('subject=CN=shop.example,O=Example\\, Inc.,C=DE');
  expect(openssl(stdout, '-text')).toContain(
    'DNS:shop.example, DNS:*.shop.example, DNS:xn--kln-sna.example, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:7',
  );
  const keyOf = await run(kmsProgram, ['public-key', '-k', `alias/${spec}`], { env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }) });
  expect(openssl(stdout, '-pubkey')).toBe(keyOf.stdout.toString());
  writeFileSync(folder.join('request.pem'), stdout);
  const at = (name: string): string => folder.join(name);
  const ca = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=CA',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
  ];
  expect(spawnSync('openssl', ca).status).toBe(0);
  const issue = ['x509', '-req', '-in', at('request.pem'), '-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-copy_extensions', 'copy', '-out', at('cert.pem')];
  expect(spawnSync('openssl', issue).status).toBe(0);
  expect(spawnSync('openssl', ['verify', '-CAfile', at('ca.pem'), '-verify_hostname', 'shop.example', at('cert.pem')]).status).toBe(0);
});

test('csr: names alone, a subject alone; and what is none is refused before the key is asked', async () => {
  expect(openssl((await csr('-k', 'alias/EC_P256', '--dns', 'a.example')).stdout, '-verify')).toContain('verify OK');
  expect(openssl((await csr('-k', 'alias/EC_P256', '--subject', 'CN=a')).stdout, '-verify')).toContain('verify OK');
  const kms = await agent.client();
  const nothing = { keyId: 'alias/none', subject: '', dns: [], ip: [] }; // the key is not there: it would be another error if it were asked
  const subjects = ['shop', 'X=shop', 'CN=', 'CN=a,', ',CN=a', 'C=Germany', `CN=${'a'.repeat(65)}`, 'CN=a+O=b', 'CN=a\\', 'CN=\\FF', 'CN=a\nb'];
  const dns = ['a b', '127.0.0.1', '127.1', '', '*', 'a..b', '-a.example', 'a.*.example', `${'a'.repeat(64)}.example`];
  const ip = ['example.org', 'fe80::1%eth0', '1.2.3', '::g', ''];
  const wrong = [{}, ...subjects.map((subject) => ({ subject })), ...dns.map((name) => ({ dns: [name] })), ...ip.map((address) => ({ ip: [address] }))];
  for (const params of wrong) await expect(requestCertificate(kms, { ...nothing, ...params }), JSON.stringify(params)).rejects.toBeInstanceOf(TypeError);
  expect(await csr('-k', 'alias/EC_P256')).toMatchObject({ code: 2, stderr: expect.stringContaining('--subject') as string });
  expect(await csr('-k', 'alias/EC_P256', '--dns', 'a b')).toMatchObject({ code: 2, stderr: 'kms: a b is no host name\n' });
  expect(await csr('-k', 'alias/default', '--dns', 'a.example')).toMatchObject({ code: 1, stderr: expect.stringContaining('ERR_UNSUPPORTED') as string });
});

test('csr: a key that is rotated in between signs with the version that the request names', async () => {
  const kms = await agent.client();
  const racing = Object.create(kms, {
    getPublicKey: {
      value: async (params: GetPublicKeyParams) => {
        const answer = await kms.getPublicKey(params);
        await kms.createKeyVersion({ keyId: answer.keyId });
        return answer;
      },
    },
  }) as AgentClient;
  const request = await requestCertificate(racing, { keyId: 'alias/EC_P256', subject: 'CN=a', dns: [], ip: [] });
  expect(openssl(Buffer.from(request), '-verify')).toContain('verify OK');
});

test('csr: a subject of any text comes back from OpenSSL as it was', () => {
  const escapeValue = (text: string): string => text.replace(/[ "#+,;<=>\\]/g, '\\$&');
  const value = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
    .filter((text) => !/\p{Cc}/u.test(text) && text.isWellFormed() && text.length <= 64);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom('CN', 'O', 'OU', 'L', 'ST'), value), { minLength: 1, maxLength: 4 }), (parts) => {
      const der = encodeSubject(parts.map(([name, text]) => `${name}=${escapeValue(text)}`).join(','));
      const { status, stdout, stderr } = spawnSync('openssl', ['asn1parse', '-inform', 'DER', '-dump'], { input: der, encoding: 'utf8' });
      expect(status, stderr).toBe(0);
      expect(stdout.match(/UTF8STRING/g)).toHaveLength(parts.length);
      for (const [, text] of parts) expect(der.includes(Buffer.from(text))).toBe(true);
    }),
    { numRuns: 30 },
  );
});
