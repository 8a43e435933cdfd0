import { createServer } from 'node:net';

/* `node echo-server.ts SOCKET BYTES`: answers each line with a line of so many bytes. */
const [path = '', bytes = '2'] = process.argv.slice(2);
const answer = `${'y'.repeat(Number(bytes) - 1)}\n`;
createServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    for (let at = chunk.indexOf(0x0a); at >= 0; at = chunk.indexOf(0x0a, at + 1)) socket.write(answer);
  });
}).listen(path, () => console.log('ready'));
