import {
  type DocumentNode,
  type FragmentDefinitionNode,
  GraphQLError,
  Kind,
  Lexer,
  type OperationDefinitionNode,
  type SelectionSetNode,
  Source,
  TokenKind,
} from 'graphql';

/** What one request may ask for. Each is checked before anything is executed. */
export interface Limits {
  /** Of an HTTP body and of a WebSocket message to `/hostd`. */
  bodyBytes: number;
  hostMessageBytes: number;
  /** Of a WebSocket message to `/graphql`. */
  messageBytes: number;
  /** UTF-16 units of the query's text. */
  queryLength: number;
  tokens: number;
  /** Brackets of any kind inside each other: what the parser and every visitor recurse on. */
  nesting: number;
  /** Fields inside each other, fragments flattened. */
  depth: number;
  /** The same for `__schema` and `__type`: the standard introspection query has 15. */
  introspectionDepth: number;
  /** Fields of the whole document, fragments flattened. */
  fields: number;
  /** Pairs of fields with the same response name, which validation compares. */
  overlaps: number;
  aliases: number;
  rootFields: number;
  /** Leaves and branches of the JSON of `variables`, and how deep they go. */
  variableValues: number;
  variableDepth: number;
  cost: number;
  /** What one user may ask for in a minute, in the units of `cost`. */
  costPerMinute: number;
  /** Of a request, from its last byte to its answer. */
  requestMs: number;
  /** Of the look-up of a token. */
  authenticateMs: number;
  /** How long a token that is known is not looked up again. */
  rememberTokenMs: number;
  /** A WebSocket has to say who it is within this time. */
  connectionInitMs: number;
  sockets: number;
  /** Connections to the port of hosts whose other side has shown no certificate of ours. */
  strangers: number;
  /** How long one of these lasts: to join takes a moment. */
  strangerMs: number;
  /** What one user may have open. */
  socketsPerUser: number;
  operationsPerSocket: number;
  /** What a socket may have waiting to be sent before it is closed. */
  bufferedBytes: number;
  /** What a subscriber may have waiting before it gets the newest only. */
  coalesceBytes: number;
  /** How long a socket may have something waiting and take nothing. */
  stalledMs: number;
  /** How long a socket may have nothing open and ask for nothing. */
  idleSocketMs: number;
  /** Of a body whose sender has shown no token. */
  publicBodyBytes: number;
  /** Of what he asks, which no allowance counts: signing in, and little of who has signed in. */
  publicCost: number;
  /** How often the tokens of open sockets and streams are looked up again. */
  recheckMs: number;
  /** How long `close()` waits for requests in flight. */
  drainMs: number;
}

export const DEFAULT_LIMITS: Limits = {
  bodyBytes: 1_000_000,
  hostMessageBytes: 4 * 1024 * 1024,
  messageBytes: 256 * 1024,
  queryLength: 100_000,
  tokens: 4_000,
  nesting: 60,
  depth: 15,
  introspectionDepth: 20,
  fields: 3_000,
  overlaps: 20_000,
  aliases: 60,
  rootFields: 30,
  variableValues: 10_000,
  variableDepth: 20,
  cost: 100_000,
  costPerMinute: 3_000_000,
  requestMs: 30_000,
  authenticateMs: 4_000,
  rememberTokenMs: 5_000,
  connectionInitMs: 5_000,
  sockets: 10_000,
  strangers: 256,
  strangerMs: 30_000,
  socketsPerUser: 50,
  operationsPerSocket: 100,
  bufferedBytes: 1024 * 1024,
  coalesceBytes: 256 * 1024,
  stalledMs: 10_000,
  idleSocketMs: 10 * 60_000,
  publicBodyBytes: 16 * 1024,
  publicCost: 500,
  recheckMs: 20_000,
  drainMs: 10_000,
};

export const limitExceeded = (message: string): GraphQLError =>
  new GraphQLError(message, { extensions: { code: 'LIMIT_EXCEEDED' } });

/**
 * Counts tokens and brackets before the parser sees the text, because the parser recurses: 10,000 brackets end in a
 * RangeError from the stack.
 *
 * @throws GraphQLError LIMIT_EXCEEDED, or a syntax error
 */
export function checkText(query: string, limits: Limits): void {
  if (query.length > limits.queryLength)
    throw limitExceeded(`The query has ${query.length} characters; ${limits.queryLength} are allowed.`);
  const lexer = new Lexer(new Source(query));
  let nesting = 0;
  for (let tokens = 0; lexer.advance().kind !== TokenKind.EOF; tokens++) {
    if (tokens === limits.tokens) throw limitExceeded(`The query has more than the ${limits.tokens} tokens allowed.`);
    const { kind } = lexer.token;
    if (kind === TokenKind.BRACE_L || kind === TokenKind.BRACKET_L || kind === TokenKind.PAREN_L) nesting++;
    if (kind === TokenKind.BRACE_R || kind === TokenKind.BRACKET_R || kind === TokenKind.PAREN_R) nesting--;
    if (nesting > limits.nesting)
      throw limitExceeded(`The query has brackets more than ${limits.nesting} deep, which is the limit.`);
  }
}

interface Walk {
  limits: Limits;
  fragments: Map<string, FragmentDefinitionNode>;
  /** Fragments that are being flattened here. A cycle over several levels runs into the limit of depth instead. */
  open: Set<string>;
  fields: number;
  overlaps: number;
  aliases: number;
}

/**
 * Walks each operation with its fragments flattened, and stops at the first limit: so a bomb of fragments costs no more
 * than the limit. Runs before validation, whose comparison of overlapping fields is quadratic.
 *
 * @throws GraphQLError LIMIT_EXCEEDED
 */
export function checkShape(document: DocumentNode, limits: Limits): void {
  const fragments = new Map<string, FragmentDefinitionNode>();
  for (const node of document.definitions)
    if (node.kind === Kind.FRAGMENT_DEFINITION) fragments.set(node.name.value, node);
  const walk: Walk = { limits, fragments, open: new Set(), fields: 0, overlaps: 0, aliases: 0 };
  for (const node of document.definitions) {
    if (node.kind === Kind.OPERATION_DEFINITION) walkOperation(walk, node);
    else if (node.kind === Kind.FRAGMENT_DEFINITION) {
      // By itself too: validation looks at fragments that nobody spreads.
      walk.aliases = 0;
      visit(walk, [node.selectionSet], 1, limits.introspectionDepth);
    }
  }
}

function walkOperation(walk: Walk, operation: OperationDefinitionNode): void {
  const { limits } = walk;
  walk.aliases = 0;
  const roots = flatten(walk, [operation.selectionSet]);
  if (roots.size > limits.rootFields)
    throw limitExceeded(`The operation has ${roots.size} fields at its root; ${limits.rootFields} are allowed.`);
  for (const { name, selections } of roots.values())
    visit(walk, selections, 2, isIntrospection(name) ? limits.introspectionDepth : limits.depth);
}

const isIntrospection = (fieldName: string): boolean => fieldName === '__schema' || fieldName === '__type';

/** @param depth how deep the fields of these selections are; @param maxDepth how deep they may be */
function visit(walk: Walk, selections: SelectionSetNode[], depth: number, maxDepth: number): void {
  if (selections.length === 0) return;
  if (depth > maxDepth) throw limitExceeded(`The query is more than ${maxDepth} fields deep, which is the limit.`);
  for (const field of flatten(walk, selections).values()) visit(walk, field.selections, depth + 1, maxDepth);
}

interface Flat {
  name: string;
  count: number;
  selections: SelectionSetNode[];
}

/** The fields of selections that stand at the same place, by response name. */
function flatten(walk: Walk, selections: SelectionSetNode[]): Map<string, Flat> {
  const fields = new Map<string, Flat>();
  for (const selection of selections) collect(walk, selection, fields);
  return fields;
}

function collect(walk: Walk, { selections }: SelectionSetNode, into: Map<string, Flat>): void {
  const { limits } = walk;
  for (const selection of selections) {
    if (selection.kind === Kind.FIELD) {
      const responseName = selection.alias?.value ?? selection.name.value;
      const field = into.get(responseName) ?? { name: selection.name.value, count: 0, selections: [] };
      into.set(responseName, field);
      walk.overlaps += field.count++;
      if (selection.selectionSet) field.selections.push(selection.selectionSet);
      if (selection.alias) walk.aliases++;
    } else if (selection.kind === Kind.INLINE_FRAGMENT) {
      collect(walk, selection.selectionSet, into);
    } else collectSpread(walk, selection.name.value, into);

    // Spreads count too: empty fragments that spread each other are a bomb as well.
    if (++walk.fields > limits.fields)
      throw limitExceeded(`The query has more than the ${limits.fields} fields allowed, fragments counted each time.`);
    if (walk.aliases > limits.aliases)
      throw limitExceeded(`The operation has more than the ${limits.aliases} aliases allowed.`);
    if (walk.overlaps > limits.overlaps)
      throw limitExceeded(
        `The query repeats the same fields too often: more than ${limits.overlaps} pairs, which is the limit.`,
      );
  }
}

function collectSpread(walk: Walk, name: string, into: Map<string, Flat>): void {
  const fragment = walk.fragments.get(name);
  if (!fragment || walk.open.has(name)) return;
  walk.open.add(name);
  collect(walk, fragment.selectionSet, into);
  walk.open.delete(name);
}

/** @throws GraphQLError LIMIT_EXCEEDED */
export function checkVariables(variables: Record<string, unknown>, limits: Limits): void {
  let values = 0;
  const count = (value: unknown, depth: number): void => {
    if (++values > limits.variableValues)
      throw limitExceeded(`The variables have more than the ${limits.variableValues} values allowed.`);
    if (typeof value !== 'object' || value === null) return;
    if (depth === limits.variableDepth)
      throw limitExceeded(`The variables are more than ${limits.variableDepth} deep, which is the limit.`);
    for (const child of Object.values(value)) count(child, depth + 1);
  };
  count(variables, 0);
}
