import { Buffer } from 'node:buffer';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** Longest socket path in bytes, sun_path of unix(7) less its NUL; Node cuts a longer one silently and talks to another socket. */
export const maxSocketPathBytes = process.platform === 'darwin' ? 103 : 107;

/** Where the socket address came from. */
export type AddressSource = 'option' | 'KMS_AGENT_SOCK' | 'XDG_RUNTIME_DIR' | 'system';

export interface SocketAddress {
  readonly path: string;
  readonly source: AddressSource;
}

/** The socket of the agent that a system service runs. */
export const systemSocketPath = '/run/kms-agent/agent.sock';

/** @throws TypeError if the path is empty, holds a NUL, or is longer than the platform's limit. */
export function checkSocketPath(path: string): string {
  const length = Buffer.byteLength(path);
  if (length === 0 || path.includes('\0')) throw new TypeError('A socket path must not be empty and must not hold a NUL.');
  if (length <= maxSocketPathBytes) return path;
  throw new TypeError(`The socket path is ${length} bytes long, this system allows ${maxSocketPathBytes}: ${path}`);
}

/**
 * Finds the agent's socket: `option`, else `KMS_AGENT_SOCK`, else `$XDG_RUNTIME_DIR/kms-agent/agent.sock` if it exists, else the system's.
 * @throws TypeError as checkSocketPath.
 */
export function findSocket(option?: string, env: NodeJS.ProcessEnv = process.env): SocketAddress {
  const { KMS_AGENT_SOCK: fromEnv, XDG_RUNTIME_DIR: runtimeDir } = env;
  if (option !== undefined) return { path: checkSocketPath(option), source: 'option' };
  if (fromEnv) return { path: checkSocketPath(fromEnv), source: 'KMS_AGENT_SOCK' };
  const userPath = runtimeDir ? join(runtimeDir, 'kms-agent', 'agent.sock') : undefined;
  if (userPath && existsSync(userPath)) return { path: checkSocketPath(userPath), source: 'XDG_RUNTIME_DIR' };
  return { path: systemSocketPath, source: 'system' };
}
