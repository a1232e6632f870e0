import { type ExecutionResult, execute, parse, validate } from 'graphql';
import { compileQuery, isCompiledQuery } from 'graphql-jit';
import type { Actor } from '../../src/domain/authorize.ts';
import type { HostAgent } from '../../src/domain/host-agent.ts';
import type { GraphContext, Ops } from '../../src/graphql/context.ts';
import { schema } from '../../src/graphql/schema.ts';

export const ADMIN: Actor = { kind: 'root-admin', tokenId: 1, name: 'root-admin' };

const refuse = (what: string) => () => {
  throw new Error(`${what} is not part of this test`);
};

/** Throws on whatever the test has not given. */
export function testContext(given: Partial<GraphContext> & Pick<GraphContext, 'db'>): GraphContext {
  const missing = <T extends object>(name: string): T =>
    new Proxy({}, { get: (_target, property) => refuse(`${name}.${String(property)}`) }) as T;
  return {
    actor: ADMIN,
    ops: missing<Ops>('ops'),
    inventory: missing('inventory'),
    agent: { ...missing<HostAgent>('agent'), progressOf: () => null },
    feed: missing('feed'),
    watch: missing('watch'),
    requestId: 'test-request',
    userAgent: null,
    cookies: null,
    actorOf: refuse('actorOf'),
    address: '192.0.2.1',
    ...given,
  };
}

export type Answer = ExecutionResult<Record<string, never>>;

/** The two ways in which a document may be executed; both must give the same answer. */
export const EXECUTORS = {
  'graphql-js': async (context: GraphContext, source: string, variables: Record<string, unknown> = {}) => {
    const document = validated(source);
    return (await execute({ schema, document, contextValue: context, variableValues: variables })) as Answer;
  },
  'graphql-jit': async (context: GraphContext, source: string, variables: Record<string, unknown> = {}) => {
    const compiled = compileQuery(schema, validated(source), '');
    if (!isCompiledQuery(compiled)) throw new Error(JSON.stringify(compiled.errors));
    return (await compiled.query({}, context, variables)) as Answer;
  },
};

function validated(source: string) {
  const document = parse(source);
  const errors = validate(schema, document);
  if (errors.length > 0) throw new Error(errors.map((error) => error.message).join('\n'));
  return document;
}
