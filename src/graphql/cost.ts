import {
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  type GraphQLCompositeType,
  type GraphQLSchema,
  getNamedType,
  isCompositeType,
  isInterfaceType,
  isObjectType,
  Kind,
  type OperationDefinitionNode,
  type SelectionSetNode,
  type ValueNode,
} from 'graphql';
import { DEFAULT_PAGE, MAX_PAGE } from './page.ts';

export interface Cost {
  /** Roughly the objects that are read and told; leaves are free. Infinite for fragments that spread themselves. */
  cost: number;
  /** Fields within fields. */
  depth: number;
  /** Fields under another name, fragments spread out. */
  aliases: number;
  /** Fields of the operation itself, fragments spread out. */
  rootFields: number;
}

/**
 * `extensions.cost` of a field. `own`: what it costs by itself. `list`: what is selected in it counts as often as the
 * page is long. `factor`: it counts so often.
 */
interface FieldCost {
  own: number;
  list?: boolean;
  factor?: number;
}

/** What a selection costs, apart from the variables: `base`, plus parts that count as often as a page is long. */
interface Plan {
  base: number;
  parts: { size: PageSize; plan: Plan }[];
  depth: number;
  aliases: number;
  fields: number;
}
/** A number that is known already, or depends on the variables. */
type PageSize = number | ((variables: Record<string, unknown>) => number);

const RECURSIVE: Plan = {
  base: Number.POSITIVE_INFINITY,
  parts: [],
  depth: Number.POSITIVE_INFINITY,
  aliases: Number.POSITIVE_INFINITY,
  fields: Number.POSITIVE_INFINITY,
};

const PLANS = new WeakMap<DocumentNode, Map<string, Plan>>();

/**
 * What an operation asks for, before it is run. Safe on what was never validated: each fragment is looked at once, so
 * neither cycles nor fragments that double at each level take time. The look at a document is kept with it.
 */
export function costOf(
  schema: GraphQLSchema,
  document: DocumentNode,
  operationName: string | null | undefined,
  variables: Record<string, unknown> | null | undefined,
): Cost {
  let plans = PLANS.get(document);
  if (!plans) {
    plans = new Map();
    PLANS.set(document, plans);
  }
  const name = operationName ?? '';
  let plan = plans.get(name);
  if (!plan) {
    plan = new Planner(schema, document).operation(name);
    plans.set(name, plan);
  }
  return {
    cost: evaluate(plan, variables ?? {}),
    depth: plan.depth,
    aliases: plan.aliases,
    rootFields: plan.fields,
  };
}

/** Each plan once, however often it is part of others. */
function evaluate(plan: Plan, variables: Record<string, unknown>, known = new Map<Plan, number>()): number {
  if (plan.parts.length === 0) return plan.base;
  const before = known.get(plan);
  if (before !== undefined) return before;
  let cost = plan.base;
  for (const { size, plan: part } of plan.parts) {
    const times = typeof size === 'number' ? size : size(variables);
    const inner = evaluate(part, variables, known);
    // 0 times infinity is not a number.
    if (times > 0 && inner > 0) cost += times * inner;
  }
  known.set(plan, cost);
  return cost;
}

class Planner {
  readonly #schema: GraphQLSchema;
  readonly #document: DocumentNode;
  readonly #fragments: Map<string, FragmentDefinitionNode>;
  /** Null while a fragment is being looked at. */
  readonly #known = new Map<string, Plan | null>();

  constructor(schema: GraphQLSchema, document: DocumentNode) {
    this.#schema = schema;
    this.#document = document;
    this.#fragments = new Map(
      document.definitions
        .filter((node) => node.kind === Kind.FRAGMENT_DEFINITION)
        .map((fragment) => [fragment.name.value, fragment]),
    );
  }

  operation(name: string): Plan {
    const operation = this.#document.definitions.find(
      (node): node is OperationDefinitionNode =>
        node.kind === Kind.OPERATION_DEFINITION && (name === '' || node.name?.value === name),
    );
    const type = operation && this.#schema.getRootType(operation.operation);
    if (!operation || !type) return empty();
    return this.#selection(operation.selectionSet, type, operation);
  }

  #selection(set: SelectionSetNode, type: GraphQLCompositeType, operation: OperationDefinitionNode): Plan {
    const plan = empty();
    for (const node of set.selections) {
      if (node.kind === Kind.FIELD) add(plan, this.#field(node, type, operation));
      else if (node.kind === Kind.FRAGMENT_SPREAD) add(plan, this.#fragment(node.name.value, operation));
      else {
        const on = node.typeCondition ? this.#schema.getType(node.typeCondition.name.value) : type;
        if (on && isCompositeType(on)) add(plan, this.#selection(node.selectionSet, on, operation));
      }
    }
    return plan;
  }

  #fragment(name: string, operation: OperationDefinitionNode): Plan {
    const known = this.#known.get(name);
    if (known === null) return RECURSIVE;
    if (known) return known;
    const fragment = this.#fragments.get(name);
    const type = fragment && this.#schema.getType(fragment.typeCondition.name.value);
    if (!fragment || !type || !isCompositeType(type)) return empty();
    this.#known.set(name, null);
    const plan = this.#selection(fragment.selectionSet, type, operation);
    this.#known.set(name, plan);
    return plan;
  }

  #field(node: FieldNode, type: GraphQLCompositeType, operation: OperationDefinitionNode): Plan {
    const plan = empty();
    plan.fields = 1;
    plan.depth = 1;
    plan.aliases = node.alias && node.alias.value !== node.name.value ? 1 : 0;
    const field = isObjectType(type) || isInterfaceType(type) ? type.getFields()[node.name.value] : undefined;
    const named = field && getNamedType(field.type);
    const composite = named && isCompositeType(named) ? named : null;
    const said = field?.extensions['cost'] as FieldCost | undefined;
    plan.base = said?.own ?? (composite ? 1 : 0);
    if (!field || !composite || !node.selectionSet) return plan;
    const inner = this.#selection(node.selectionSet, composite, operation);
    plan.depth += inner.depth;
    plan.aliases += inner.aliases;
    if (said?.list) repeat(plan, inner, pageSize(node, operation));
    else if (said?.factor) repeat(plan, inner, said.factor);
    else {
      plan.base += inner.base;
      plan.parts.push(...inner.parts);
    }
    return plan;
  }
}

const empty = (): Plan => ({ base: 0, parts: [], depth: 0, aliases: 0, fields: 0 });

function add(to: Plan, plan: Plan): void {
  to.base += plan.base;
  // As one part each: a fragment that is spread many times is evaluated, not copied.
  if (plan.parts.length > 0) to.parts.push({ size: 1, plan: { ...plan, base: 0 } });
  to.depth = Math.max(to.depth, plan.depth);
  to.aliases += plan.aliases;
  to.fields += plan.fields;
}

function repeat(plan: Plan, inner: Plan, size: PageSize): void {
  if (typeof size === 'number' && inner.parts.length === 0 && inner.base < Number.POSITIVE_INFINITY)
    plan.base += size * inner.base;
  else plan.parts.push({ size, plan: inner });
}

/** As long as `first`, `last` or the list of `ids` says; what will be refused costs what it may cost at most. */
function pageSize(node: FieldNode, operation: OperationDefinitionNode): PageSize {
  const argument = node.arguments?.find(({ name }) => SIZES.includes(name.value));
  if (!argument) return DEFAULT_PAGE;
  const { value } = argument;
  if (value.kind !== Kind.VARIABLE) return literalSize(value);
  const name = value.name.value;
  const byDefault = literalSize(
    operation.variableDefinitions?.find(({ variable }) => variable.name.value === name)?.defaultValue,
  );
  return (variables) => {
    const given = variables[name];
    if (Array.isArray(given)) return clamp(given.length);
    return typeof given === 'number' ? clamp(given) : byDefault;
  };
}
const SIZES = ['first', 'last', 'ids'];

function literalSize(value: ValueNode | undefined): number {
  if (value?.kind === Kind.LIST) return clamp(value.values.length);
  return value?.kind === Kind.INT ? clamp(Number(value.value)) : DEFAULT_PAGE;
}

const clamp = (size: number): number => (Number.isNaN(size) ? DEFAULT_PAGE : Math.min(MAX_PAGE, Math.max(0, size)));
