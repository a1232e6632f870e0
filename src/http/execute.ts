import {
  createSourceEventStream,
  type DocumentNode,
  type ExecutionResult,
  execute,
  GraphQLError,
  type GraphQLSchema,
  getOperationAST,
  getVariableValues,
  Kind,
  type OperationDefinitionNode,
  parse,
  validate,
} from 'graphql';
import { type CompiledQuery, compileQuery, isCompiledQuery } from 'graphql-jit';
import type { Logger } from 'pino';
import { checkShape, checkText, checkVariables, type Limits, limitExceeded } from './limits.ts';
import { isPublic, type PublicFields } from './public-access.ts';
import { codeOfError, invalidDocument, invalidVariables, malformed, Refusal, type ToGraphQLError } from './refusal.ts';

/** @returns what the operation may cost at most, in units of about one field */
export type CostOf = (
  schema: GraphQLSchema,
  document: DocumentNode,
  operationName: string | null,
  variables: Record<string, unknown>,
) => number;

export interface PipelineOptions {
  schema: GraphQLSchema;
  limits: Limits;
  /** Null: operations of this schema are not counted. */
  costOf: CostOf | null;
  toGraphQLError: ToGraphQLError;
  log: Logger;
  /** The run of a document at which it is compiled. Default 2: what is asked once is not worth it. */
  compileAtRun?: number;
  /** In place of graphql-jit. */
  compile?: typeof compileQuery;
}

/** What a request asks, in whatever way it came. */
export interface GraphQLParams {
  query: string;
  operationName: string | null;
  variables: Record<string, unknown>;
}

/** An operation that passed every check and may be run. */
export interface Operation {
  readonly params: GraphQLParams;
  readonly document: DocumentNode;
  readonly node: OperationDefinitionNode;
  readonly cost: number | null;
  readonly known: KnownDocument;
}

interface KnownDocument {
  document: DocumentNode;
  runs: number;
  /** By operation name. Null: graphql-jit can't, so graphql-js does. */
  compiled: Map<string, CompiledQuery | null>;
}

const DOCUMENTS_KEPT = 500;
/** Longer texts are parsed each time, so that what is kept stays bounded. */
const KEPT_LENGTH = 16_384;
const MAX_ERRORS = 50;

/**
 * The one way from a query's text to its result, for HTTP and WebSocket alike: the same checks, the same errors.
 *
 * Queries are compiled by graphql-jit, which asks two things of a schema: `resolveType` and `isTypeOf` answer at once,
 * not by a promise, and what a field without a resolver reads is a value, not a method.
 */
export class Pipeline {
  readonly #options: PipelineOptions;
  /** Parsed and valid, by text; the least recently used first. */
  readonly #documents = new Map<string, KnownDocument>();

  constructor(options: PipelineOptions) {
    this.#options = options;
  }

  get schema(): GraphQLSchema {
    return this.#options.schema;
  }

  /** As `prepare`, for who has shown no token. @throws Refusal `why` for all but what is public */
  preparePublic(params: GraphQLParams, allowed: PublicFields, why: Refusal): Operation {
    const document = this.#documents.get(params.query)?.document ?? this.#parse(params.query);
    if (!isPublic(document, params.operationName, allowed)) throw why;
    return this.#prepare(params, this.#options.limits.publicCost);
  }

  /** @throws Refusal */
  prepare(params: GraphQLParams): Operation {
    return this.#prepare(params, this.#options.limits.cost);
  }

  #prepare(params: GraphQLParams, maxCost: number): Operation {
    const known = this.#document(params.query);
    const { document } = known;
    const node = getOperationAST(document, params.operationName);
    if (!node) throw invalidDocument([new GraphQLError(whichOperation(document, params.operationName))]);
    refuseOver(() => checkVariables(params.variables, this.#options.limits));
    const { errors } = getVariableValues(this.schema, node.variableDefinitions ?? [], params.variables, {
      maxErrors: MAX_ERRORS,
    });
    if (errors) throw invalidVariables(errors);
    return { params, document, node, cost: this.#cost(document, node, params, maxCost), known };
  }

  /** Runs a query or mutation, or a subscription's selection for one `event`. Never throws. */
  async execute(
    operation: Operation,
    contextValue: object,
    requestId: string,
    event?: unknown,
  ): Promise<ExecutionResult> {
    let result: ExecutionResult;
    try {
      const compiled = this.#compiled(operation);
      const { document, params } = operation;
      result = compiled
        ? relocated(await compiled.query(event, contextValue, params.variables), document)
        : await execute({
            schema: this.schema,
            document,
            rootValue: event,
            contextValue,
            variableValues: params.variables,
            operationName: params.operationName,
          });
    } catch (error) {
      result = { errors: [error as GraphQLError] };
    }
    return this.finish(result, requestId, operation.node.operation === 'subscription' ? null : operation.cost);
  }

  /** @returns the subscription's own events, or why it can't be; never throws */
  async open(
    operation: Operation,
    contextValue: object,
    requestId: string,
  ): Promise<AsyncIterable<unknown> | ExecutionResult> {
    const { document, params } = operation;
    let stream: AsyncIterable<unknown> | ExecutionResult;
    try {
      stream = await createSourceEventStream({
        schema: this.schema,
        document,
        contextValue,
        variableValues: params.variables,
        operationName: params.operationName,
      });
    } catch (error) {
      stream = { errors: [error as GraphQLError] };
    }
    return Symbol.asyncIterator in stream ? stream : this.finish(stream, requestId, null);
  }

  /** Makes errors fit to be shown, and adds the cost. */
  finish(result: ExecutionResult, requestId: string, cost: number | null): ExecutionResult {
    const extensions = cost === null ? result.extensions : { ...result.extensions, cost };
    return {
      ...(result.errors?.length ? { errors: result.errors.map((error) => this.shown(error, requestId)) } : {}),
      ...('data' in result ? { data: result.data } : {}),
      ...(extensions ? { extensions } : {}),
    };
  }

  shown(error: unknown, requestId: string): GraphQLError {
    return this.#options.toGraphQLError(error, requestId);
  }

  #document(query: string): KnownDocument {
    let known = this.#documents.get(query);
    if (known) this.#documents.delete(query);
    else known = this.#check(query);
    if (query.length <= KEPT_LENGTH) {
      this.#documents.set(query, known);
      if (this.#documents.size > DOCUMENTS_KEPT) this.#documents.delete(this.#documents.keys().next().value!);
    }
    return known;
  }

  #check(query: string): KnownDocument {
    const document = this.#parse(query);
    const errors = validate(this.schema, document, undefined, { maxErrors: MAX_ERRORS });
    if (errors.length > 0) throw invalidDocument(errors);
    return { document, runs: 0, compiled: new Map() };
  }

  #parse(query: string): DocumentNode {
    const { limits } = this.#options;
    return refuseOver(() => {
      checkText(query, limits);
      const parsed = parse(query);
      checkShape(parsed, limits);
      return parsed;
    });
  }

  /** What the schema says of itself is bounded by its own depth and costs no resolver. */
  #cost(document: DocumentNode, node: OperationDefinitionNode, params: GraphQLParams, maxCost: number): number | null {
    const { costOf } = this.#options;
    if (!costOf || asksSchemaOnly(node)) return null;
    const cost = costOf(this.schema, document, params.operationName, params.variables);
    if (cost <= maxCost) return cost;
    throw new Refusal([
      limitExceeded(
        `The operation may cost ${cost}; ${maxCost} is allowed. Ask for fewer fields, or shorter lists with \`first\`.`,
      ),
    ]);
  }

  #compiled({ known, node, document }: Operation): CompiledQuery | null {
    // Mutations stay with graphql-js: they have few fields to gain from, and their order is not to be risked.
    if (node.operation === 'mutation') return null;
    if (++known.runs < (this.#options.compileAtRun ?? 2)) return null;
    const name = node.name?.value ?? '';
    let compiled = known.compiled.get(name);
    if (compiled === undefined) {
      compiled = this.#compile(document, name);
      known.compiled.set(name, compiled);
    }
    return compiled;
  }

  #compile(document: DocumentNode, name: string): CompiledQuery | null {
    const { compile = compileQuery, log } = this.#options;
    const result = compile(this.schema, document, name || undefined, { useExperimentalPathBasedSkipInclude: true });
    if (isCompiledQuery(result)) return result;
    log.warn({ operation: name, err: result.errors?.[0] }, 'graphql-jit cannot compile; graphql-js runs it');
    return null;
  }
}

/** @throws Refusal with 400 for a limit; a syntax error is the document's */
function refuseOver<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof GraphQLError)) throw error;
    throw codeOfError(error) === 'LIMIT_EXCEEDED' ? new Refusal([error]) : invalidDocument([error]);
  }
}

function whichOperation(document: DocumentNode, operationName: string | null): string {
  if (operationName !== null) return `The query has no operation named "${operationName}".`;
  return document.definitions.some((node) => node.kind === Kind.OPERATION_DEFINITION)
    ? 'The query has several operations: name one with `operationName`.'
    : 'The query has no operation.';
}

const asksSchemaOnly = ({ selectionSet }: OperationDefinitionNode): boolean =>
  selectionSet.selections.every((node) => node.kind === Kind.FIELD && node.name.value.startsWith('__'));

/** The parameters of a request, from its JSON. @throws Refusal */
export function readParams(body: unknown): GraphQLParams {
  if (Array.isArray(body)) throw malformed('Requests are not batched: send one object, not a list.');
  if (typeof body !== 'object' || body === null) throw malformed('The body has to be a JSON object with a `query`.');
  const { query, operationName, variables, extensions } = body as Record<string, unknown>;
  if (typeof query !== 'string') throw malformed('`query` has to be a string.');
  if (operationName !== undefined && operationName !== null && typeof operationName !== 'string')
    throw malformed('`operationName` has to be a string.');
  if (!isMap(variables)) throw malformed('`variables` has to be an object.');
  if (!isMap(extensions)) throw malformed('`extensions` has to be an object.');
  return { query, operationName: operationName ?? null, variables: variables ?? {} };
}

const isMap = (value: unknown): value is Record<string, unknown> | null | undefined =>
  value === undefined || value === null || (typeof value === 'object' && !Array.isArray(value));

/** Errors of graphql-jit say only line and column, and not where they come from; here they become those of graphql-js. */
function relocated(result: ExecutionResult, document: DocumentNode): ExecutionResult {
  const source = document.loc?.source;
  if (!result.errors?.length || !source) return result;
  const lineStarts = [0];
  for (const match of source.body.matchAll(/\r\n|[\n\r]/g)) lineStarts.push(match.index + match[0].length);
  const errors = result.errors.map(
    ({ message, locations, path, originalError }) =>
      new GraphQLError(message, {
        source,
        positions: (locations ?? []).map(({ line, column }) => (lineStarts[line - 1] ?? 0) + column - 1),
        path: path ?? null,
        originalError: originalError ?? ownOrigin(message),
      }),
  );
  return { ...result, errors };
}

/** A resolver that breaks its promise is our fault, so it must be masked; the rest is about values, and may be shown. */
const ownOrigin = (message: string): Error =>
  message.startsWith('Cannot return null for non-nullable field') ? new Error(message) : new GraphQLError(message);
