import { type ErrorCode, errors, remedies } from '@kms-agent/protocol';

const escapeCell = (text: string): string => text.replaceAll('|', '\\|');

/** Every error with what it says and what to do about it, as a page of Markdown. */
export function formatErrorsPage(): string {
  const rows = (Object.keys(errors) as ErrorCode[]).map((code) => {
    const { number, message, retryable } = errors[code];
    return `| ${code} | ${number} | ${escapeCell(message)} | ${escapeCell(remedies[code])} | ${retryable ? 'yes' : ''} |`;
  });
  return `# Errors

Every error of the agent and the client, with what to do about it. \`kms\` prints the same. \`retryable\` errors may go away by themselves.
Those of 19xx are made by the client and never sent. Made by \`node test/pages/main.ts\` from \`protocol/src/errors.ts\` and \`remedies.ts\`.

| code | number | says | what to do | retryable |
|---|---|---|---|---|
${rows.join('\n')}
`;
}
