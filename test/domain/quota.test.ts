import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Actor, UserActor } from '../../src/domain/authorize.ts';
import { BUILT_IN_RULES, permissionsOf, type Reach } from '../../src/domain/permission.ts';
import {
  excessOf,
  excessText,
  minus,
  QUOTA,
  type QuotaRow,
  quotaOwners,
  seesQuota,
  together,
  usageOf,
} from '../../src/domain/quota.ts';

const GIB = 2 ** 30;
const row = (more: Partial<QuotaRow> = {}): QuotaRow => {
  const columns = Object.values(QUOTA).flatMap(({ used, cap }) => [
    [used, 0],
    [cap, null],
  ]);
  return { id: 7, generation: 1, ...Object.fromEntries(columns), ...more } as QuotaRow;
};

describe('a quota', () => {
  it('takes what just fits, and says of what does not how much is missing, in the units of people', () => {
    const quota = row({ vms_used: 9, vms_cap: 10, primary_bytes_used: GIB / 2, primary_bytes_cap: 2 * GIB });
    assert.equal(excessOf(quota, { vms: 1, primaryBytes: 1.5 * GIB }), null);
    const excess = excessOf(quota, { vms: 1, primaryBytes: 1.5 * GIB + 1 });
    assert.equal(excess?.resource, 'PRIMARY_GIB');
    assert.equal(excessText(excess!), '0.50 of 2 GiB of primary storage; this needs 1.50 more');
    assert.equal(excessText(excessOf(quota, { vms: 2 })!), '9 of 10 VMs; this needs 2 more');
  });

  it('counts what is under way, but not what is about to be given back', () => {
    const quota = row({ vms_used: 8, vms_cap: 10 });
    assert.equal(excessOf(quota, { vms: 2 }, { vms: 1 })?.used, 9);
    assert.equal(excessOf(quota, { vms: 2 }, { vms: -5 }), null);
    assert.equal(excessOf(quota, { vms: 3 }, { vms: -5 })?.used, 8);
  });

  it('refuses nothing without a limit, and lets what is over its limit give back', () => {
    assert.equal(excessOf(row({ vms_used: 1_000 }), { vms: 1_000 }), null);
    assert.equal(excessOf(row({ vms_used: 1_000, vms_cap: 1 }), { vms: -1 }), null);
    assert.equal(excessOf(row({ vms_used: 1_000, vms_cap: 1 }), { vms: 0, vcpus: 4 }), null);
    assert.equal(excessOf(row({ vms_cap: 0 }), { vms: 1 })?.limit, 0);
  });

  it('is the least of its path upward', () => {
    const path = [
      row({ vms_used: 2, vms_cap: 10, memory_used_mib: 128 }),
      row({ vms_used: 7, vms_cap: 8 }),
      row({ vms_used: 30, vms_cap: 20, memory_used_mib: 512, memory_cap_mib: 1_024 }),
    ] as const;
    const usage = Object.fromEntries(usageOf(path).map(({ resource, ...numbers }) => [resource, numbers]));
    assert.deepEqual(usage['VMS'], { limit: 10, used: 2, effectiveLimit: 8, available: 0 });
    assert.deepEqual(usage['MEMORY_MIB'], { limit: null, used: 128, effectiveLimit: 1_024, available: 512 });
    assert.deepEqual(usage['VOLUMES'], { limit: null, used: 0, effectiveLimit: null, available: null });
    assert.equal(Object.keys(usage).length, Object.keys(QUOTA).length);
  });

  it('stands at the account and at each domain up to the root', () => {
    assert.deepEqual(quotaOwners(9, '/1/1003/1007/'), [
      { kind: 'account', id: 9 },
      { kind: 'domain', id: 1007 },
      { kind: 'domain', id: 1003 },
      { kind: 'domain', id: 1 },
    ]);
  });

  it('is charged by sums, which taken back come to nothing', () => {
    const charge = together({ vms: 1, vcpus: 2 }, { vms: 1, volumes: 3 });
    assert.deepEqual(charge, { vms: 2, vcpus: 2, volumes: 3 });
    assert.deepEqual(together(charge, minus(charge)), { vms: 0, vcpus: 0, volumes: 0 });
  });

  it('shows its numbers to who administers it or has it, and not to who merely stands in the domain', () => {
    const user = (reach: Reach): UserActor => ({
      kind: 'user',
      userId: 1,
      credential: { kind: 'api_key', id: 1 },
      accountId: 9,
      domainPath: '/1/1003/',
      name: 'a/u',
      roleIds: [2],
      reach,
      projects: new Map(),
      permissions: permissionsOf(BUILT_IN_RULES[2]!),
    });
    const root: Actor = { kind: 'root-admin', tokenId: 1, name: 'root' };
    const tenancy = { domainPathOf: (id: number) => (id === 9 ? '/1/1003/' : '/1/') };
    const told = (actor: Actor) => [
      seesQuota(actor, { kind: 'account', id: 9 }, undefined, tenancy),
      seesQuota(actor, { kind: 'account', id: 8 }, undefined, tenancy),
      seesQuota(actor, { kind: 'domain', id: 1007 }, '/1/1003/1007/', tenancy),
      seesQuota(actor, { kind: 'domain', id: 1003 }, '/1/1003/', tenancy),
      seesQuota(actor, { kind: 'domain', id: 1 }, '/1/', tenancy),
    ];
    assert.deepEqual(told(root), [true, true, true, true, true]);
    assert.deepEqual(told(user('DOMAIN')), [true, false, true, true, false]);
    assert.deepEqual(told(user('ACCOUNT')), [true, false, false, false, false]);
  });
});
