/**
 * Roles as data: ordered rules over verb × kind, and whose objects they are about. Pure, so that the graph can show what
 * decides, and a grant can be compared with what the granter has.
 */

export const VERBS = ['read', 'create', 'update', 'delete', 'operate'] as const;
export type Verb = (typeof VERBS)[number];

/** Kinds of things that a rule may name, beside `*`. */
export const GUARDED_KINDS = [
  'zone',
  'pod',
  'cluster',
  'host',
  'primary_storage',
  'offering',
  'template',
  'vm',
  'volume',
  'job',
  'event',
  'audit',
  'domain',
  'account',
  'user',
  'role',
  'api_key',
  'project_member',
  'session',
  'identity_provider',
] as const;
export type GuardedKind = (typeof GUARDED_KINDS)[number];

/** Whose objects a role is about: everybody's, those of the own domain and below it, those of the own account. */
export const REACHES = ['ALL', 'DOMAIN', 'ACCOUNT'] as const;
export type Reach = (typeof REACHES)[number];

export interface Rule {
  effect: 'ALLOW' | 'DENY';
  verb: Verb | '*';
  kind: GuardedKind | '*';
}

/** `<verb> <kind>` of all that is allowed. */
export type Permissions = ReadonlySet<string>;

/** What somebody has in the end, whatever it was made of. */
export interface Rights {
  reach: Reach;
  permissions: Permissions;
}

/** The first rule that fits decides; what no rule speaks of is denied. */
export function permits(rules: readonly Rule[], verb: Verb, kind: GuardedKind): boolean {
  const rule = rules.find((r) => (r.verb === '*' || r.verb === verb) && (r.kind === '*' || r.kind === kind));
  return rule?.effect === 'ALLOW';
}

/** All that the rules allow, worked out once. */
export function permissionsOf(rules: readonly Rule[]): Permissions {
  const allowed = GUARDED_KINDS.flatMap((kind) =>
    VERBS.filter((verb) => permits(rules, verb, kind)).map((verb) => `${verb} ${kind}`),
  );
  return new Set(allowed);
}

/** The nearer of two. */
export const narrower = (a: Reach, b: Reach): Reach => (REACHES.indexOf(a) > REACHES.indexOf(b) ? a : b);

/** What two roles both allow: a key's role never adds to its user's. */
export const both = (a: Rights, b: Rights): Rights => ({
  reach: narrower(a.reach, b.reach),
  permissions: a.permissions.intersection(b.permissions),
});

/** What `granted` has beyond `granter`, as a person reads it; empty: it may be granted. */
export function excess(granted: Rights, granter: Rights): string[] {
  const beyond = [...granted.permissions.difference(granter.permissions)];
  return narrower(granted.reach, granter.reach) === granted.reach ? beyond : [`reach ${granted.reach}`, ...beyond];
}

const allow = (verb: Rule['verb'], kind: Rule['kind']): Rule => ({ effect: 'ALLOW', verb, kind });
/** What a tenant has, and what it has to know to order something. */
const KNOWN = [
  ...(['zone', 'offering', 'template'] as const),
  ...(['vm', 'volume', 'job', 'event'] as const),
  ...(['domain', 'account', 'user', 'role', 'api_key', 'project_member'] as const),
];

const USER = [
  ...(['vm', 'volume', 'api_key'] as const).map((kind) => allow('*', kind)),
  allow('operate', 'job'),
  ...KNOWN.map((kind) => allow('read', kind)),
];

/** The rules of the roles that every installation has, by the id of their rows in schema/mysql/0002-tenants.sql. */
export const BUILT_IN_RULES: Record<number, readonly Rule[]> = {
  // root admin
  1: [allow('*', '*')],
  // domain admin
  2: [
    ...(
      [
        'vm',
        'volume',
        'domain',
        'account',
        'user',
        'role',
        'api_key',
        'session',
        'project_member',
        'identity_provider',
      ] as const
    ).map((k) => allow('*', k)),
    allow('operate', 'job'),
    // Of tenants they alone: it tells what others of the account did, and from where.
    allow('read', 'audit'),
    ...KNOWN.map((kind) => allow('read', kind)),
  ],
  // user
  3: USER,
  // read-only
  4: KNOWN.map((kind) => allow('read', kind)),
  // project admin
  5: [allow('*', 'project_member'), ...USER],
};

/** A row of `role`: the rules of those that every installation has come with the program. */
export interface RoleRow {
  id: number;
  reach: Reach;
  /** JSON: Rule[] */
  rules: string;
}

export const rulesOf = ({ id, rules }: Pick<RoleRow, 'id' | 'rules'>): readonly Rule[] =>
  BUILT_IN_RULES[id] ?? (JSON.parse(rules) as Rule[]);

export const rightsOfRole = (role: RoleRow): Rights => ({
  reach: role.reach,
  permissions: permissionsOf(rulesOf(role)),
});
