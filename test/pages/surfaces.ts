import * as client from '@kms-agent/client';
import * as age from '@kms-agent/client/age';
import { errors, makeOpenRpcDocument } from '@kms-agent/protocol';
import { type CommandPage, readCommands } from './commands.ts';

interface Schema {
  readonly properties?: Readonly<Record<string, unknown>>;
  readonly required?: readonly string[];
  readonly enum?: readonly unknown[];
}

interface Method {
  readonly name: string;
  readonly params: readonly { readonly name: string; readonly required: boolean; readonly schema: Schema }[];
  readonly result: { readonly schema: Schema };
}

/** What others may rely on, a line each. */
export interface Surfaces {
  /** What must never go away. */
  readonly offered: readonly string[];
  /** What must never grow: what a caller has to give, as `what: which`. */
  readonly demanded: readonly string[];
}

function describeMethod({ name, params, result }: Method): string[] {
  const values = params.flatMap((param) => [param.name, ...(param.schema.enum ?? []).map((value) => `${param.name}=${String(value)}`)]);
  const { properties = {}, required = [] } = result.schema;
  const fields = Object.keys(properties).map((field) => (required.includes(field) ? `${field}, always` : field));
  return [`method ${name}`, ...values.map((value) => `method ${name}: ${value}`), ...fields.map((field) => `method ${name} answers ${field}`)];
}

/** A flag without the name of its value. */
const nameOf = (flags: string): string => flags.replace(/ [<[].*$/, '');

function describeCommand({ name, commands, options }: CommandPage, path: string): string[] {
  const own = `${path} ${name}`;
  return [own, ...options.map(({ flags }) => `${own} ${nameOf(flags)}`), ...commands.flatMap((command) => describeCommand(command, own))];
}

function demandsOf({ name, commands, usage, options }: CommandPage, path: string): string[] {
  const own = `${path} ${name}`;
  const operands = (usage.match(/<[^>]+>/g) ?? []).map((_, index) => `${own}: operand ${index + 1}`);
  const mandatory = options.filter((option) => option.mandatory).map(({ flags }) => `${own}: ${nameOf(flags)}`);
  return [...operands, ...mandatory, ...commands.flatMap((command) => demandsOf(command, own))];
}

/** Reads the surfaces off what is built. */
export function readSurfaces(): Surfaces {
  const methods = makeOpenRpcDocument('')['methods'] as unknown as readonly Method[]; // our own document
  const programs = ['client/dist/cli/main.js', 'daemon/dist/cli/main.js'].map(readCommands);
  let methodsOfClient: string[] = [];
  for (let type: unknown = client.AgentClient.prototype; type !== Object.prototype && type !== null; type = Object.getPrototypeOf(type))
    methodsOfClient = [...methodsOfClient, ...Object.getOwnPropertyNames(type).filter((name) => name !== 'constructor')];
  return {
    offered: [
      ...methods.flatMap(describeMethod),
      ...Object.entries(errors).map(([name, { number }]) => `error ${name} ${number}`),
      ...programs.flatMap((program) => describeCommand(program, 'command')),
      ...Object.keys(client).map((name) => `export ${name}`),
      ...Object.keys(age).map((name) => `export age ${name}`),
      ...methodsOfClient.map((name) => `client.${name}`),
    ].sort(),
    demanded: [
      ...methods.flatMap(({ name, params }) => params.filter(({ required }) => required).map((param) => `method ${name}: ${param.name}`)),
      ...programs.flatMap((program) => demandsOf(program, 'command')),
    ].sort(),
  };
}
