import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BUILT_IN_RULES,
  both,
  excess,
  GUARDED_KINDS,
  narrower,
  permissionsOf,
  permits,
  type Reach,
  type Rights,
  type Rule,
  VERBS,
} from '../../src/domain/permission.ts';

const allow = (verb: Rule['verb'], kind: Rule['kind']): Rule => ({ effect: 'ALLOW', verb, kind });
const deny = (verb: Rule['verb'], kind: Rule['kind']): Rule => ({ effect: 'DENY', verb, kind });

describe('rules', () => {
  it('the first that fits decides', () => {
    assert.equal(permits([deny('delete', 'vm'), allow('*', 'vm')], 'delete', 'vm'), false);
    assert.equal(permits([allow('*', 'vm'), deny('delete', 'vm')], 'delete', 'vm'), true);
    assert.equal(permits([deny('*', 'host'), allow('*', '*')], 'read', 'host'), false);
  });

  it('deny what none of them speaks of', () => {
    assert.equal(permits([], 'read', 'vm'), false);
    assert.equal(permits([allow('read', 'vm')], 'update', 'vm'), false);
  });

  it('that allow everything allow each verb on each kind', () => {
    assert.equal(permissionsOf([allow('*', '*')]).size, VERBS.length * GUARDED_KINDS.length);
  });
});

describe('what is granted', () => {
  const rights = (reach: Reach, rules: readonly Rule[]): Rights => ({ reach, permissions: permissionsOf(rules) });
  const user = rights('ACCOUNT', BUILT_IN_RULES[3]!);
  const admin = rights('DOMAIN', BUILT_IN_RULES[2]!);

  it('cannot exceed what the granter has', () => {
    assert.deepEqual(excess(user, admin), []);
    assert.deepEqual(excess(rights('ACCOUNT', [allow('read', 'host')]), admin), ['read host']);
    assert.deepEqual(excess(rights('ALL', []), admin), ['reach ALL']);
    assert.ok(excess(admin, user).includes('reach DOMAIN'));
  });

  it('is what both roles allow, as far as both reach', () => {
    const auditor = rights('ALL', [allow('read', '*')]);
    const narrowed = both(user, auditor);
    assert.equal(narrowed.reach, 'ACCOUNT');
    assert.ok(narrowed.permissions.has('read vm') && !narrowed.permissions.has('create vm'));
    assert.ok(!narrowed.permissions.has('read host'));
    assert.deepEqual([excess(narrowed, user), excess(narrowed, auditor)], [[], []]);
  });

  it('reaches no further than both', () => {
    assert.equal(narrower('ALL', 'ACCOUNT'), 'ACCOUNT');
    assert.equal(narrower('DOMAIN', 'ALL'), 'DOMAIN');
  });
});

describe('built-in roles', () => {
  const has = (role: number) => permissionsOf(BUILT_IN_RULES[role]!);

  it('a reader may change nothing', () => {
    assert.deepEqual(
      [...has(4)].filter((permission) => !permission.startsWith('read ')),
      [],
    );
  });

  it('nobody but a root admin knows of hosts and what they stand in', () => {
    for (const role of [2, 3, 4])
      for (const kind of ['pod', 'cluster', 'host', 'primary_storage'])
        for (const verb of VERBS) assert.ok(!has(role).has(`${verb} ${kind}`), `${role} may ${verb} a ${kind}`);
  });

  it('each has what the next has, so that it can be granted', () => {
    for (const [more, less] of [
      [1, 2],
      [2, 3],
      [3, 4],
    ] as const)
      assert.deepEqual([...has(less).difference(has(more))], []);
  });
});
