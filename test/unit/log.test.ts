import { expect, test } from 'vitest';
import { LogSink } from '../../daemon/src/log.ts';

/** A stream whose reader can stand still. */
class Pipe {
  readonly lines: string[] = [];
  writableLength = 0;
  isRead = true;

  write(line: string | Uint8Array): boolean {
    const text = Buffer.from(line).toString();
    this.lines.push(text);
    if (!this.isRead) this.writableLength += text.length;
    return true;
  }
}

test('LogSink: a reader that stands still makes nothing grow, and what it missed is counted when it reads again', () => {
  const pipe = new Pipe();
  const sink = new LogSink(pipe as never, 1000, (dropped) => `${dropped} dropped`);
  pipe.isRead = false;
  for (let index = 0; index < 10_000; index += 1) sink.write(`line ${index} ${'x'.repeat(90)}\n`);
  expect(pipe.writableLength).toBeLessThan(1200);
  const missed = 10_000 - pipe.lines.length;
  pipe.isRead = true;
  pipe.writableLength = 0;
  sink.write('after\n');
  expect(pipe.lines.slice(-2)).toEqual([`${missed} dropped\n`, 'after\n']);
  sink.write('more\n');
  expect(pipe.lines.at(-1)).toBe('more\n');
});
