import { AccountList } from './account.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { IdentityProviderList } from './identity-provider.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { DomainRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { tenantMutations } from './with-all-inside.ts';

const DomainFilterRef = builder.inputType('DomainFilter', {
  description: 'Narrows a list of domains.',
  fields: (t) => ({
    parentId: t.id({ description: 'Only domains right below this one.' }),
    name: t.string({ description: 'Only domains of exactly this name.' }),
    namePrefix: t.string({ description: 'Only domains whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only domains that are wanted so.' }),
  }),
});

const where = conditionsOn('domain');
const DomainList = list({
  table: 'domain',
  ref: DomainRef,
  noun: 'Domain',
  filter: DomainFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('parent_id', 'domain', filter.parentId, 'parentId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

DomainRef.implement({
  description:
    'A part of an organisation: accounts, and domains below it. Whoever administers it administers those too.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'domain'),
    requireSecondFactor: t.boolean({
      description: 'Whoever signs in here, or in a domain below, needs a second factor.',
      resolve: (domain) => domain.require_second_factor === 1,
    }),
    parent: t.field({
      type: DomainRef,
      nullable: true,
      description: 'What it belongs to; null for the root, and for who may not see it.',
      resolve: (domain, _args, context) =>
        domain.parent_id === null ? null : loadersOf(context).find('domain', domain.parent_id),
    }),
    domains: childList(t, DomainList, 'The domains right below it.', 'parent_id'),
    identityProviders: childList(t, IdentityProviderList, 'Where else people of its accounts are known.', 'domain_id'),
    accounts: childList(t, AccountList, 'The accounts that stand in it itself.', 'domain_id'),
  }),
});

builder.queryFields((t) => ({
  domain: lookUp(t, 'domain'),
  domains: rootList(t, DomainList, 'The domains that the caller may see.'),
}));

mutation('createDomain', 'domain', 'Adds a domain below another.', (t) => ({
  parentId: t.id({ required: true, description: 'What it belongs to.' }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
}));
mutation('updateDomain', 'domain', 'Renames a domain, or has it ask for a second factor.', (t) => ({
  ...updateInput(t, 'domain'),
  name: t.string({ description: 'A new name.' }),
  requireSecondFactor: t.boolean({
    description:
      'Whoever signs in here, or in a domain below, needs a second factor. Sessions without one can set one up.',
  }),
}));
mutation(
  'moveDomain',
  'domain',
  'Puts a domain, with all below it, into another. What it has counts there; what users in it have open ends.',
  (t) => ({
    ...updateInput(t, 'domain'),
    parentId: t.id({ required: true, description: 'What it will belong to.' }),
  }),
);
tenantMutations('domain', {
  enable: 'Lets the users of a domain and of all below it in again.',
  disable: 'Lets nobody of a domain and of all below it in, and no new VM. What runs runs on unless told.',
  delete: 'Deletes a domain that has neither domains nor accounts; or, told so, one with all of that.',
});
