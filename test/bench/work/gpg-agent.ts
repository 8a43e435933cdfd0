import { createHash, randomBytes } from 'node:crypto';
import { ecdsaSignature } from './ecdsa.ts';
import { OrderedStream } from './stream.ts';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

/** The end of an Assuan answer: a line that begins with OK or ERR. */
function takeAnswer(bytes: Buffer): number {
  for (let from = 0; ; ) {
    const end = bytes.indexOf(0x0a, from) + 1;
    if (end === 0) return 0;
    if (/^(OK|ERR)/.test(bytes.toString('latin1', from, from + 3))) return end;
    from = end;
  }
}

/** What the D lines of an answer carry, without their escapes. */
function dataOf(answer: Buffer): Buffer {
  const lines = answer.toString('latin1').split('\n');
  const data = lines.filter((line) => line.startsWith('D ')).map((line) => line.slice(2));
  return Buffer.from(
    data.join('').replaceAll(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
}

/** A value of a canonical S-expression, by its name. */
function partOf(data: Buffer, name: string): Buffer {
  const head = new RegExp(`\\(${name.length}:${name}(\\d+):`).exec(data.toString('latin1'));
  if (!head) throw new WrongAnswer('gpg-agent');
  const start = head.index + head[0].length;
  return data.subarray(start, start + Number(head[1]));
}

/** GnuPG's agent, by its own protocol (Assuan): three commands a signature, which is what its clients send. */
export async function openGpgAgent({ socketPath, keygrip }: Extract<WorkSpec, { kind: 'gpg-agent' }>): Promise<Session> {
  const stream = await OrderedStream.open(socketPath, takeAnswer);
  await stream.ask(); // it greets
  const message = randomBytes(1024);
  const hash = createHash('sha256').update(message).digest('hex');
  const point = partOf(dataOf(await stream.ask(`READKEY ${keygrip}\n`)), 'q');
  let last: Promise<unknown> = Promise.resolve();
  const sign = async (check: boolean): Promise<void> => {
    await stream.ask(`SIGKEY ${keygrip}\n`);
    await stream.ask(`SETHASH --hash=sha256 ${hash}\n`);
    const data = dataOf(await stream.ask('PKSIGN\n'));
    const isRight = !check || ecdsaSignature(point, partOf(data, 'r'), partOf(data, 's')).isValid(message);
    if (data.length === 0 || !isRight) throw new WrongAnswer('gpg-agent');
  };
  return {
    call: (check) => {
      const mine = last.then(() => sign(check)); // its state is the connection's
      last = mine.catch(() => undefined);
      return mine;
    },
    close: () => stream.close(),
  };
}
