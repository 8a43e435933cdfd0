import type { Command } from 'commander';
import { utf8 } from '../bytes.ts';
import { requestCertificate } from '../certificate/request.ts';
import { type ByteOptions, UsageError, writeBytes } from './files.ts';
import { printJson } from './print.ts';
import { optionsOf, withClient } from './session.ts';

interface RequestOptions extends Omit<ByteOptions, 'base64'> {
  readonly key: string;
  readonly subject: string;
  readonly dns: readonly string[];
  readonly ip: readonly string[];
}

const collect = (value: string, before: readonly string[]): string[] => [...before, value];

/** csr: a certificate request that a key of the agent signs. */
export function addCertificateCommands(program: Command): void {
  program
    .command('csr')
    .description('make a certificate request (PKCS #10) for an EC or RSA key, signed by it')
    .requiredOption('-k, --key <key>', 'key id or alias/NAME of a key that signs')
    .option('--subject <name>', 'distinguished name as in RFC 4514: CN=shop.example,O=Example,C=DE', '')
    .option('--dns <name>', 'host name that the certificate is for (repeatable)', collect, [])
    .option('--ip <address>', 'IP address that the certificate is for (repeatable)', collect, [])
    .option('-o, --output <file>', 'write to a new 0600 file instead of standard output')
    .option('-f, --force', 'write over a file that is there')
    .addHelpText('after', '\nExample:\n  $ kms csr -k alias/shop --subject CN=shop.example --dns shop.example --dns www.shop.example -o shop.csr')
    .action(async (_options: object, command: Command) => {
      const { key: keyId, subject, dns, ip, json, ...target } = optionsOf<RequestOptions>(command);
      if (subject.trim() === '' && dns.length + ip.length === 0) throw new UsageError('a request needs --subject, --dns or --ip');
      const request = await withClient(command, (client) => requestCertificate(client, { keyId, subject, dns, ip }));
      if (json) printJson({ certificateRequest: request });
      else writeBytes(utf8(request), target);
    });
}
