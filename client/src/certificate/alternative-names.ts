import { isIP, isIPv4 } from 'node:net';
import { domainToASCII } from 'node:url';
import { contextBytes, objectId, octetString, sequence } from './der.ts';

const label = '[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?';
const dnsName = new RegExp(`^(?:\\*\\.)?${label}(?:\\.${label})*$`);

/** A name in letters of other scripts is written as DNS has it (RFC 5891). @throws TypeError for what is no host name. */
function encodeDns(name: string): Buffer {
  const ascii = domainToASCII(name);
  if (isIP(ascii) !== 0) throw new TypeError(`${name} is an address: give it as an IP`);
  if (ascii.length > 253 || !dnsName.test(ascii)) throw new TypeError(`${name} is no host name`);
  return contextBytes(2, Buffer.from(ascii));
}

/** The eight groups of an address, of whatever of its spellings. */
function expandIPv6(address: string): Buffer {
  const [front = '', back] = new URL(`http://[${address}]/`).hostname.slice(1, -1).split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':')).map((group) => group.padStart(4, '0'));
  const [before, after] = [groups(front), groups(back ?? '')];
  return Buffer.from([...before, ...Array.from({ length: 8 - before.length - after.length }, () => '0000'), ...after].join(''), 'hex');
}

/** @throws TypeError for what is no address. */
function encodeIp(address: string): Buffer {
  if (isIP(address) === 0 || address.includes('%')) throw new TypeError(`${address} is no IP address`);
  return contextBytes(7, isIPv4(address) ? Buffer.from(address.split('.').map(Number)) : expandIPv6(address));
}

/** The extension subjectAltName (RFC 5280, section 4.2.1.6). @throws TypeError for what is no host name or address. */
export function encodeAlternativeNames(dns: readonly string[], ip: readonly string[]): Buffer {
  return sequence(objectId('2.5.29.17'), octetString(sequence(...dns.map(encodeDns), ...ip.map(encodeIp))));
}
