import { connect } from 'node:net';
import { type AgentStatus, decodeResult, encodeFrame, FrameReader, parseFrame } from '@kms-agent/protocol';
import { isHidden, wrong } from './finding.ts';

/** Milliseconds that an agent may take to answer. */
const answerTimeoutMs = 5000;
/** Nobody listens: there is no file, or it was left behind. */
const absent = new Set(['ENOENT', 'ECONNREFUSED']);

const request = encodeFrame({ jsonrpc: '2.0', id: 1, method: 'status' });

function readStatus(frame: Buffer): AgentStatus {
  const { result } = parseFrame(frame) as { result?: unknown }; // what it holds is checked by its schema
  return decodeResult('status', result);
}

/**
 * Asks the agent on a socket how it is.
 * @returns undefined where none answers because none runs.
 * @throws WrongError when what listens does not answer as an agent does.
 */
export function askStatus(socketPath: string): Promise<AgentStatus | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<AgentStatus | undefined>();
  const socket = connect(socketPath, () => socket.write(request));
  const reader = new FrameReader();
  const fail = (reason: string): void => reject(wrong(`what listens on ${socketPath} does not answer as an agent: ${reason}`, 'look into its log; restart it'));
  socket.setTimeout(answerTimeoutMs, () => socket.destroy(new Error(`no answer for ${answerTimeoutMs} ms`)));
  socket.on('data', (chunk: Buffer) => {
    try {
      for (const frame of reader.push(chunk)) resolve(readStatus(frame));
      socket.end();
    } catch (error) {
      socket.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  });
  socket.on('error', (error) => {
    if ('code' in error && absent.has(String(error.code))) resolve(undefined);
    else if (isHidden(error)) reject(wrong(error.message, 'run doctor as root, or as one who may connect'));
    else fail(error.message);
  });
  socket.on('close', () => fail('it closed the connection')); // does nothing once it has answered
  return promise;
}
