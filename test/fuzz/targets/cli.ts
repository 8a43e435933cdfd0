import { spawn } from 'node:child_process';
import fc from 'fast-check';
import { cleanEnv, kmsProgram, TempFolder } from '../../kit/agent.ts';
import { FuzzAgent, inTime } from '../agent.ts';
import { must, prove, type Target } from '../target.ts';

/** Words of a vocabulary. */
const oneOf = (...texts: readonly string[]): fc.Arbitrary<string> => fc.constantFrom(...texts.flatMap((text) => text.split(' ')));

const commands = oneOf(
  'encrypt decrypt sign verify public-key random status unlock whoami explain call completion encrypt-file help',
  'key alias keyslot policy audit confirm-clock',
);
const words = oneOf(
  'create list show enable disable rotate delete import add remove set tail versions rotation tag policy',
  '-k --key --aad --aad-file --base64 -o -f --json --timeout --passphrase-fd --help -- - --spec --limit --as',
  'alias/aes alias/none file none /dev/null 0 -1 1e9 NaN 9 {} [] {"keyId":1} bash AES_256 30d uid=0 a=b',
);
const argv = fc.record({
  command: fc.oneof({ weight: 9, arbitrary: commands }, fc.string({ maxLength: 6 })),
  args: fc.array(fc.oneof({ weight: 9, arbitrary: words }, fc.string({ maxLength: 8 })), { maxLength: 5 }),
  input: fc.oneof(fc.constant(''), fc.string({ unit: 'binary', maxLength: 20 })),
});

/** Runs it with no terminal that it could ask on. */
function runKms(args: readonly string[], input: string, cwd: string, socketPath: string): Promise<{ code: number | null; stderr: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ code: number | null; stderr: string }>();
  const child = spawn(process.execPath, [kmsProgram, ...args], {
    cwd,
    detached: true,
    stdio: ['pipe', 'ignore', 'pipe'],
    env: cleanEnv({ KMS_AGENT_SOCK: socketPath }),
  });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdin.on('error', () => undefined); // it may end without reading
  child.stdin.end(input);
  child.on('error', reject);
  child.on('close', (code) => resolve({ code, stderr }));
  return promise;
}

/** Command lines of kms. */
export const cli: Target = {
  name: 'cli',
  promise: 'kms ends by itself with one of its exit statuses, and says what is wrong in words, never in stack traces',
  runs: 15,
  open: (stack) => {
    const agent = stack.use(new FuzzAgent());
    const folder = stack.use(new TempFolder());
    return prove(argv, async ({ command, args, input }) => {
      const given = [command, ...args].map((arg) => arg.replaceAll('\0', ''));
      await agent.run(async () => {
        const { code, stderr } = await inTime(runKms(given, input, folder.path, agent.socketPath), `kms ${given.join(' ')} does not end`);
        must(code !== null && code >= 0 && code <= 4, `kms ends with ${code}: ${stderr}`);
        must(!/\n\s+at |\[object Object\]|undefined|ERR_INTERNAL/.test(stderr), `kms says ${stderr}`);
      });
    });
  },
};
