import { OrderedStream } from './stream.ts';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

/** Lines over a bare socket, of the length of our frames, answered by echo-server.ts: what the same bytes cost without an agent. */
export async function openEcho({ socketPath, requestBytes, answerBytes }: Extract<WorkSpec, { kind: 'echo' }>): Promise<Session> {
  const stream = await OrderedStream.open(socketPath, (bytes) => bytes.indexOf(0x0a) + 1);
  const request = `${'x'.repeat(requestBytes - 1)}\n`;
  return {
    call: async () => {
      if ((await stream.ask(request)).length !== answerBytes) throw new WrongAnswer('the echo');
    },
    close: () => stream.close(),
  };
}
