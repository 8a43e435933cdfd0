import { closeSync, readSync, writeSync } from 'node:fs';
import { dieWithParent, forbidInspection } from './libc.ts';
import { exitForGood, type LogindLine, type Screen } from './logind.ts';
import { BusError, type Message, SystemBus } from './sd-bus.ts';

/*
 * A process that listens to systemd-logind (org.freedesktop.login1(5)) and delays suspension for the agent. It holds no keys.
 * Arguments: the agent's pid, and what is wanted: `suspend`, `screenLock`. Standard output: a LogindLine of JSON each. Standard input: `locked`
 * when the agent holds no keys any more, so that the machine may sleep.
 */
forbidInspection();
dieWithParent(Number(process.argv[2]));
process.umask(0o077);
for (const signal of ['SIGUSR1', 'SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const) process.on(signal, () => undefined); // a terminal sends some to us too

const wanted = new Set(process.argv.slice(3));
const service = 'org.freedesktop.login1';
const managerPath = '/org/freedesktop/login1';
const manager = `${service}.Manager`;
const session = `${service}.Session`;
const uid = process.geteuid?.();

const say = (line: LogindLine): void => void writeSync(1, `${JSON.stringify(line)}\n`);

/** Without libsystemd it will never work; without a bus it may later. */
function connect(): SystemBus {
  try {
    return new SystemBus();
  } catch (error) {
    if (error instanceof BusError) throw error;
    writeSync(2, `${String(error)}\n`);
    process.exit(exitForGood);
  }
}

const bus = connect();
/** Who answers as logind; signals of anybody else are nothing to us, although anybody may send them. */
let owner: string | undefined;
let inhibitor: number | undefined;
/** logind has said that the machine goes to sleep, and not yet that it is back. */
let isSleeping = false;

const read = <T>(path: string, of: string, property: string, type: string, take: (value: Message) => T): T =>
  bus.property(service, path, of, property, type, take);

/** Makes suspension wait for us. @returns why it does not; undefined if it does. */
function delaySleep(): string | undefined {
  if (!wanted.has('suspend') || inhibitor !== undefined) return undefined;
  try {
    inhibitor = bus.call(service, managerPath, manager, 'Inhibit', ['sleep', 'kms-agent', 'Keys leave the memory first', 'delay'], (reply) =>
      reply.descriptor(),
    );
    return undefined;
  } catch (error) {
    if (error instanceof BusError) return error.message; // not allowed, or the machine is on its way to sleep
    throw error;
  }
}

function letSleep(): void {
  if (inhibitor !== undefined) closeSync(inhibitor);
  inhibitor = undefined;
}

/** How the screen of one of our sessions is; undefined for somebody else's, and for one that has ended meanwhile. */
function findScreen(path: string): Screen | undefined {
  try {
    const [user] = read(path, session, 'User', '(uo)', (value) => value.struct('uo', () => [value.uint32(), value.text('o')] as const));
    return user === uid ? { path, locked: read(path, session, 'LockedHint', 'b', (value) => value.boolean()) } : undefined;
  } catch (error) {
    if (error instanceof BusError && error.isOfUnknown) return undefined;
    throw error;
  }
}

function listScreens(): Screen[] {
  if (!wanted.has('screenLock')) return [];
  const paths = bus.call(service, managerPath, manager, 'ListSessions', [], (reply) =>
    reply.structs('susso', () => {
      const [_id, _uid, _user, _seat, path] = [reply.text(), reply.uint32(), reply.text(), reply.text(), reply.text('o')];
      return path;
    }),
  );
  return paths.map(findScreen).filter((screen) => screen !== undefined);
}

/** Takes up a logind that has appeared, and says how everything is. */
function begin(): void {
  owner = bus.ownerOf(service);
  letSleep();
  if (owner === undefined) {
    say({ event: 'absent' });
    return;
  }
  const undelayed = delaySleep();
  const delayMs = read(managerPath, manager, 'InhibitDelayMaxUSec', 't', (value) => value.uint64()) / 1000;
  isSleeping = wanted.has('suspend') && read(managerPath, manager, 'PreparingForSleep', 'b', (value) => value.boolean());
  say({ event: 'ready', delayMs, ...(undelayed === undefined ? {} : { undelayed }), screens: listScreens(), isSleeping });
}

function takeSleep(begins: boolean): void {
  isSleeping = begins;
  if (begins) say({ event: 'suspend' });
  else delaySleep();
}

function takeScreen(name: string, path: string): void {
  const screen = wanted.has('screenLock') ? findScreen(path) : undefined;
  if (screen && name === `${session}.Lock`) say({ event: 'lock' });
  else if (screen && name === `${session}.Unlock`) say({ event: 'unlock' });
  else if (screen) say({ event: 'screen', screen });
}

const screenSignals = new Set([`${session}.Lock`, `${session}.Unlock`, 'org.freedesktop.DBus.Properties.PropertiesChanged']);

function take(signal: Message): void {
  const { name, path, sender } = signal;
  if (name === 'org.freedesktop.DBus.NameOwnerChanged' && sender === 'org.freedesktop.DBus') begin();
  else if (sender !== owner) return;
  else if (name === `${manager}.PrepareForSleep` && wanted.has('suspend')) takeSleep(signal.boolean());
  else if (screenSignals.has(name)) takeScreen(name, path);
}

bus.subscribe(`type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='${service}'`);
bus.subscribe(`type='signal',sender='${service}',interface='${manager}',member='PrepareForSleep'`);
for (const member of ['Lock', 'Unlock']) bus.subscribe(`type='signal',sender='${service}',interface='${session}',member='${member}'`);
bus.subscribe(
  `type='signal',sender='${service}',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',path_namespace='${managerPath}/session',arg0='${session}'`,
);
begin();
const input = Buffer.alloc(64);
for (;;) {
  bus.drain(take);
  if (!bus.waitWith(0)) continue;
  if (readSync(0, input) === 0) process.exit(0); // the agent is gone
  letSleep();
  if (!isSleeping) delaySleep(); // the machine was back before the agent was locked
}
