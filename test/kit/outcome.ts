import { type AgentClient, isAgentError } from '@kms-agent/client';

/** The code that a request ends with. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'no error',
    (error: unknown) => (isAgentError(error) ? error.code : String(error)),
  );
}

/** Waits until something holds. @throws Error that says what never came to be. */
export async function until(holds: () => Promise<boolean> | boolean, what: string, timeoutMs = 10_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`it never came to be that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What status says of a token. */
export async function tokenOf(kms: AgentClient, token = 'hsm') {
  return (await kms.status()).providers?.find(({ name }) => name === token);
}

/** What is the machine's affair, not the agent's. */
export const protectionsOfTheMachine = ['shutFromTheStart', 'secureHeapLocked', 'noSwap'];

/** Warnings without those about the machine. */
export const agentWarnings = async (kms: AgentClient): Promise<string[]> =>
  ((await kms.status()).warnings ?? []).filter((line) => !protectionsOfTheMachine.some((name) => line.startsWith(`The protection ${name} `)));

/** Warnings about tokens. */
export const tokenWarnings = async (kms: AgentClient): Promise<string[]> => ((await kms.status()).warnings ?? []).filter((line) => line.includes('The token'));
