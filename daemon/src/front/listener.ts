import { chmodSync, chownSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { AgentError, checkSocketPath, encodeFrame } from '@kms-agent/protocol';
import type { Peer } from '../caller/identity.ts';
import { type ReadFacts, readPeer } from '../caller/process.ts';
import type { Dispatch } from '../dispatch/request.ts';
import { BusyPoll } from './busy-poll.ts';
import { Connection, type FrontLimits } from './jsonrpc/connection.ts';
import { RpcServer } from './jsonrpc/server.ts';
import { type ConnectionLimits, ConnectionQuota } from './quota.ts';

/** Where to listen: a path, which is made and removed, or a socket that systemd has opened, with the path and mode that it was seen to have. */
export type ListenAddress =
  | { readonly path: string; readonly mode?: number; readonly groupId?: number }
  | { readonly fd: number; readonly passed?: string; readonly mode?: number };

/** Milliseconds after which a refused connection may try again. */
const busyRetryMs = 1000;

const conflict = (hint: string, cause?: unknown): AgentError => new AgentError('ERR_STATE_CONFLICT', { hint }, { cause });

/** Peers that may wait to be accepted; the kernel takes less if it allows less. Past it a connect() fails, which tells a peer less than ERR_BUSY. */
const backlog = 4096;

/** What a listener works with. */
export interface ListenerOptions {
  readonly dispatch: Dispatch;
  readonly limits: FrontLimits & ConnectionLimits & { readonly busyPollUs: number };
  /** Default: from the kernel. */
  readonly readFacts?: ReadFacts;
  /** Hears of a connection that could not be served; never fatal. */
  readonly onError: (error: unknown) => void;
}

/** Accepts connections and knows them all. */
export class Listener {
  readonly #server: Server;
  readonly #rpc: RpcServer;
  readonly #limits: FrontLimits;
  readonly #quota: ConnectionQuota;
  readonly #busyPoll: BusyPoll;
  readonly #connections = new Map<Socket, Connection>();
  readonly #readFacts: ReadFacts | undefined;
  readonly #onError: (error: unknown) => void;
  #path: { path: string; inode: number } | undefined;

  constructor({ dispatch, limits, readFacts, onError }: ListenerOptions) {
    this.#readFacts = readFacts;
    this.#rpc = new RpcServer(dispatch);
    this.#limits = limits;
    this.#quota = new ConnectionQuota(limits, process.geteuid?.() ?? 0);
    this.#busyPoll = new BusyPoll({ windowUs: limits.busyPollUs, work: dispatch });
    this.#onError = onError;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  get counts(): { connections: number; inFlight: number } {
    return { connections: this.#connections.size, inFlight: [...this.#connections.values()].reduce((sum, { inFlight }) => sum + inFlight, 0) };
  }

  /**
   * Starts accepting.
   * @throws TypeError for a path that is too long; AgentError `ERR_STATE_CONFLICT` when somebody listens there or the file is not a socket of ours.
   */
  async listen(address: ListenAddress): Promise<void> {
    if ('fd' in address) return await this.#start({ fd: address.fd });
    const path = checkSocketPath(address.path);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    await removeStaleSocket(path);
    const oldMask = process.umask(0o177); // the socket is nobody else's even before its mode is set
    try {
      await this.#start({ path, backlog });
    } finally {
      process.umask(oldMask);
    }
    if (address.groupId !== undefined) chownSync(path, process.geteuid?.() ?? 0, address.groupId);
    chmodSync(path, address.mode ?? 0o600);
    this.#path = { path, inode: lstatSync(path).ino };
  }

  /** Accepts nobody any more, lets running requests end, and closes every connection within `deadlineMs`. */
  async close(deadlineMs: number): Promise<void> {
    this.#removeSocket();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const connection of this.#connections.values()) connection.end();
    const timer = setTimeout(() => {
      for (const socket of this.#connections.keys()) socket.destroy();
    }, deadlineMs);
    await promise;
    clearTimeout(timer);
  }

  #start(where: { path: string; backlog: number } | { fd: number }): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once('error', reject);
    this.#server.listen(where, () => {
      this.#server.off('error', reject);
      this.#server.on('error', this.#onError);
      resolve();
    });
    return promise;
  }

  #accept(socket: Socket): void {
    socket.on('error', this.#onError);
    try {
      const peer = readPeer(() => descriptorOf(socket), this.#readFacts);
      const { uid } = peer.caller();
      if (this.#quota.take(uid)) this.#serve(socket, peer, uid);
      else this.#turnAway(socket, peer);
    } catch (error) {
      this.#onError(error);
      socket.destroy();
    }
  }

  #serve(socket: Socket, peer: Peer, uid: number): void {
    socket.on('close', () => {
      this.#connections.delete(socket);
      this.#quota.release(uid);
    });
    this.#connections.set(socket, new Connection(socket, peer, this.#rpc, this.#limits, this.#busyPoll));
  }

  /** Says why, and closes: a peer that keeps its end open must not keep a descriptor of ours. */
  #turnAway(socket: Socket, peer: Peer): void {
    void this.#rpc
      .refuse(peer.caller(), new AgentError('ERR_BUSY', { retryAfterMs: busyRetryMs }))
      .then((answer) => socket.end(encodeFrame(answer), () => socket.destroy()), this.#onError);
  }

  /** Removes the socket file, unless somebody else has put another there since. */
  #removeSocket(): void {
    if (!this.#path) return;
    const { path, inode } = this.#path;
    this.#path = undefined;
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat?.ino === inode) unlinkSync(path);
  }
}

/** The descriptor of a connected socket, undefined once it is closed; Node has no public way to it. */
function descriptorOf(socket: Socket): number | undefined {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } }; // a private member of node:net, there since 0.10
  return handle?.fd === undefined || handle.fd < 0 ? undefined : handle.fd;
}

/** A socket file that nobody listens on, and that is ours, is removed; anything else is an error. */
async function removeStaleSocket(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket()) throw conflict(`${path} is there and is not a socket.`);
  if (stat.uid !== process.geteuid?.()) throw conflict(`${path} is a socket of uid ${stat.uid}.`);
  if (await isAnswered(path)) throw conflict(`Another agent listens on ${path}; stop it first.`);
  unlinkSync(path);
}

function isAnswered(path: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.on('connect', () => {
    socket.destroy();
    resolve(true);
  });
  socket.on('error', (error: NodeJS.ErrnoException) =>
    error.code === 'ECONNREFUSED' ? resolve(false) : reject(conflict(`${path} cannot be checked: ${error.code}`, error)),
  );
  return promise;
}
