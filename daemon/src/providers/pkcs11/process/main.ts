import { dieWithParent, forbidInspection } from '../../../os/libc.ts';
import { type Failure, type LogInNotice, type Reply, type Request, readyId, TokenFailure, type TryNotice } from '../messages.ts';
import { Helper } from './calls.ts';

/*
 * The helper: a process of its own that alone loads pkcs11js and a vendor's module, which may block, leak, hang or crash.
 * It answers calls of the agent over its pipe and ends with it. It holds a PIN, so before anything else nobody may look into it.
 */
forbidInspection();
dieWithParent(Number(process.argv[2])); // a module that hangs would keep it from hearing that the agent is gone
process.umask(0o077);
process.on('SIGUSR1', () => undefined); // would open Node's debugger
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const) process.on(signal, () => undefined); // a terminal sends them to us too; the agent says when to end
process.on('disconnect', () => process.exit(0));

/** Comes back when the notice is on its way: what is done next may be the last thing that this process does. */
async function notify(notice: LogInNotice | TryNotice): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  process.send?.(notice, (error: Error | null) => (error ? reject(error) : resolve()));
  await promise;
}

const helper = new Helper(notify);

function describe(error: unknown): Failure {
  if (error instanceof TokenFailure) return error.failure;
  return { kind: 'failed', rv: error instanceof Error ? error.message : String(error), call: 'helper' };
}

async function answer({ id, call, params }: Request): Promise<void> {
  const handler = helper.handlers[call] as (given: typeof params) => Promise<unknown>; // the union over calls collapses to this one
  const work = async (): Promise<unknown> => await handler(params); // what it throws before it waits, as where no token is open yet, is an answer too
  const reply = await work().then(
    (result) => ({ id, result }),
    (error: unknown) => ({ id, failure: describe(error) }),
  );
  process.send?.({ ...reply, openSessions: helper.openSessions } satisfies Reply);
}

process.on('message', (request: Request) => void answer(request));
process.send?.({ id: readyId, result: 'ready', openSessions: 0 } satisfies Reply);
