import { z } from 'zod';
import { errors } from './errors.ts';
import type { OpenRpcDocument } from './messages/agent.ts';
import { methodNames, specs } from './specs.ts';

/** The protocol's version; it changes only when something a client may rely on goes away. */
export const protocolVersion = 1;

interface ObjectSchema {
  readonly properties?: Record<string, unknown>;
  readonly required?: readonly string[];
}

function wireSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'throw' });
  return rest;
}

function describeMethod(name: (typeof methodNames)[number]): Record<string, unknown> {
  const { params, result, summary } = specs[name];
  const { properties = {}, required = [] } = wireSchema(params) as ObjectSchema; // every params schema is an object
  return {
    name,
    summary,
    paramStructure: 'by-name',
    params: Object.entries(properties).map(([field, schema]) => ({ name: field, required: required.includes(field), schema })),
    result: { name: `${name}Result`, schema: wireSchema(result) },
  };
}

/** The OpenRPC 1.3 document of all methods, made from the schemas that validate them. */
export function makeOpenRpcDocument(version: string): OpenRpcDocument {
  return {
    openrpc: '1.3.2',
    info: { title: 'kms-agent', version, description: `Protocol version ${protocolVersion}: JSON-RPC 2.0, one message a line, over a Unix stream socket.` },
    methods: methodNames.map(describeMethod),
    components: { errors: Object.fromEntries(Object.entries(errors).map(([name, { number, message }]) => [name, { code: number, message }])) },
  };
}
