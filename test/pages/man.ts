import type { CommandPage } from './commands.ts';

/** A text as roff prints it: no character is a request, no hyphen is broken or curled. */
function escapeRoff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^(?=[.'])/gm, '\\&');
}

const paragraph = (text: string): string => `.PP\n${escapeRoff(text)}\n`;

/** Lines as they are, as commands and their output. */
const literal = (text: string): string => `.PP\n.nf\n${escapeRoff(text)}\n.fi\n`;

const tagged = (tag: string, text: string): string => `.TP\n.B ${escapeRoff(tag)}\n${escapeRoff(text) || '\\&'}\n`;

function formatOptions({ arguments: operands, options }: CommandPage): string {
  const operandLines = operands.filter(({ description }) => description).map(({ name, description }) => tagged(name, description));
  return [...operandLines, ...options.map((option) => tagged(option.flags, option.description + (option.default ? ` (default: ${option.default})` : '')))].join(
    '',
  );
}

/** What help says behind the options, paragraph by paragraph. */
function formatAfter(after: string): string {
  const parts = after.split(/\n\n/).filter((part) => part !== '');
  return parts.map((part) => (/\n {2}/.test(part) ? literal(part.replace(/^ {2}/gm, '    ')) : paragraph(part))).join('');
}

function formatCommand(command: CommandPage, path: string): string {
  const name = `${path} ${command.name}`;
  const below = command.commands.filter((child) => child.name !== 'help').map((child) => formatCommand(child, name));
  if (below.length > 0) return below.join('');
  const usage = command.usage.replace(/^\[options\] ?/, '');
  return `.SS ${escapeRoff([name, usage].filter(Boolean).join(' '))}\n${escapeRoff(command.description)}\n${formatOptions(command)}${formatAfter(command.after)}`;
}

/** What a page says beside the commands. */
export interface ManFrame {
  readonly environment: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, string>>;
  readonly seeAlso: string;
}

/** The page of section 1 of a command line: man(7). */
export function formatManPage(program: CommandPage, { environment, files, seeAlso }: ManFrame): string {
  const { name, description, version = '' } = program;
  const entries = (of: Readonly<Record<string, string>>): string =>
    Object.entries(of)
      .map(([tag, text]) => tagged(tag, text))
      .join('');
  return [
    `.\\" Made by test/pages/main.ts from the commands themselves.\n.TH ${name.toUpperCase()} 1 "" "${name} ${version}" "kms\\-agent"\n.nh\n.ad l\n`,
    `.SH NAME\n${escapeRoff(name)} \\- ${escapeRoff(description.replace(/\.$/, ''))}\n`,
    `.SH SYNOPSIS\n.B ${escapeRoff(name)}\n[options] command [arguments]\n`,
    `.SH OPTIONS\n${formatOptions(program)}`,
    `.SH COMMANDS\n${program.commands.map((command) => formatCommand(command, name)).join('')}`,
    `.SH EXAMPLES AND EXIT STATUS\n${formatAfter(program.after)}`,
    `.SH ENVIRONMENT\n${entries(environment)}`,
    `.SH FILES\n${entries(files)}`,
    `.SH SEE ALSO\n${escapeRoff(seeAlso)}\n`,
  ].join('');
}
