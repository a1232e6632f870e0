import { GUARDED_KINDS, type GuardedKind, type Reach, type Rule, VERBS, type Verb } from '../domain/permission.ts';
import { builder } from './builder.ts';

const VERB_DESCRIPTIONS: Record<Verb, string> = {
  read: 'Look at it.',
  create: 'Make one.',
  update: 'Change, enable and disable it.',
  delete: 'Delete it for good.',
  operate: 'Have it do what it is for: start a VM, cancel a job.',
};
type Named<T extends string> = Record<string, { description: string; value: T }>;
const upper = <T extends string>(value: T, description: string) =>
  [value.toUpperCase(), { description, value }] as const;

export const PermissionVerbRef = builder.enumType('PermissionVerb', {
  description: 'What may be done with things of a kind.',
  values: {
    ...(Object.fromEntries(VERBS.map((verb) => upper(verb, VERB_DESCRIPTIONS[verb]))) as Named<Verb>),
    ANY: { description: 'Each of them; in rules alone.', value: '*' },
  } as Named<Verb | '*'>,
});

export const PermissionKindRef = builder.enumType('PermissionKind', {
  description: 'Kinds of things that a role may be about.',
  values: {
    ...(Object.fromEntries(
      GUARDED_KINDS.map((kind) => upper(kind, `The kind \`${kind.replaceAll('_', ' ')}\`.`)),
    ) as Named<GuardedKind>),
    ANY: { description: 'Each of them; in rules alone.', value: '*' },
  } as Named<GuardedKind | '*'>,
});

export const ReachRef = builder.enumType('Reach', {
  description: 'Whose things a role is about.',
  values: {
    ALL: { description: "Everybody's, and what belongs to nobody." },
    DOMAIN: { description: "Those of the user's domain and of all below it." },
    ACCOUNT: { description: "Those of the user's account." },
  } as const satisfies Record<Reach, unknown>,
});

export const RuleEffectRef = builder.enumType('RuleEffect', {
  description: 'What a rule says.',
  values: {
    ALLOW: { description: 'It may be done.' },
    DENY: { description: 'It may not, whatever the rules after it say.' },
  } as const satisfies Record<Rule['effect'], unknown>,
});

export const PermissionRef = builder.objectRef<{ verb: Verb; kind: GuardedKind }>('Permission').implement({
  description: 'Something that may be done.',
  fields: (t) => ({
    verb: t.expose('verb', { type: PermissionVerbRef, description: 'What.' }),
    kind: t.expose('kind', { type: PermissionKindRef, description: 'With which kind of things.' }),
  }),
});
