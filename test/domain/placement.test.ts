import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  best,
  evaluate,
  type PlacementHost,
  type PlacementRequest,
  type PlacementStorage,
} from '../../src/domain/placement.ts';

const host = (more: Partial<PlacementHost> = {}): PlacementHost => ({
  id: 1,
  name: 'h1',
  clusterId: 1,
  zoneId: 1,
  wantedState: 'ENABLED',
  parentsEnabled: true,
  linkState: 'UP',
  vcpusFree: 8,
  vcpusCap: 16,
  memoryFreeMib: 4_096,
  memoryCapMib: 16_384,
  ...more,
});
const storage = (more: Partial<PlacementStorage> = {}): PlacementStorage => ({
  id: 1,
  name: 's1',
  clusterId: 1,
  enabled: true,
  bytesFree: 1_000,
  bytesCap: 10_000,
  ...more,
});
const request = (more: Partial<PlacementRequest> = {}): PlacementRequest => ({
  zoneId: 1,
  clusterId: null,
  hostId: null,
  vcpus: 2,
  memoryMib: 512,
  diskBytes: 100,
  storageClusterId: null,
  ...more,
});

/** Small numbers that repeat by their seed. */
function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe('placement', () => {
  const refusals: [string, PlacementHost, PlacementRequest, PlacementStorage[], string, number?, number?, string?][] = [
    ['ZONE', host({ zoneId: 2 }), request(), [storage()], 'It is in another zone.'],
    ['CLUSTER', host(), request({ clusterId: 2 }), [storage()], 'It is in another cluster.'],
    ['HOST', host(), request({ hostId: 2 }), [storage()], 'Another host was asked for.'],
    [
      'STORAGE_REACH',
      host(),
      request({ storageClusterId: 2 }),
      [storage()],
      'It does not reach the storage that the volumes are on.',
    ],
    ['ENABLED', host({ wantedState: 'DISABLED' }), request(), [storage()], 'It is disabled.'],
    ['ENABLED', host({ parentsEnabled: false }), request(), [storage()], 'Its cluster, pod or zone is disabled.'],
    ['CONNECTED', host({ linkState: 'UNREACHABLE' }), request(), [storage()], 'Its link is UNREACHABLE.'],
    [
      'VCPUS',
      host({ vcpusFree: 1 }),
      request(),
      [storage()],
      'Not enough vCPUs: 2 needed, 1 of 16 free, 1 missing.',
      2,
      1,
      'vCPUs',
    ],
    [
      'MEMORY',
      host({ memoryFreeMib: 500 }),
      request(),
      [storage()],
      'Not enough memory: 512 MiB needed, 500 MiB of 16384 MiB free, 12 MiB missing.',
      512,
      500,
      'MiB',
    ],
    ['STORAGE', host(), request(), [], 'Its cluster has no enabled primary storage.'],
    ['STORAGE', host(), request(), [storage({ enabled: false })], 'Its cluster has no enabled primary storage.'],
    [
      'STORAGE',
      host(),
      request({ diskBytes: 1_001 }),
      [storage()],
      'Not enough room on primary storage s1: 1001 B needed, 1000 B of 10000 B free, 1 B missing.',
      1_001,
      1_000,
      'B',
    ],
    [
      'STORAGE',
      host(),
      request({ diskBytes: 2 ** 30 }),
      [storage({ bytesFree: 768 * 2 ** 20, bytesCap: 2 ** 40 })],
      'Not enough room on primary storage s1: 1024 MiB needed, 768 MiB of 1048576 MiB free, 256 MiB missing.',
      2 ** 30,
      768 * 2 ** 20,
      'B',
    ],
    [
      'VCPUS',
      host({ vcpusFree: -3 }),
      request(),
      [storage()],
      'Not enough vCPUs: 2 needed, 0 of 16 free, 2 missing.',
      2,
      0,
      'vCPUs',
    ],
  ];
  for (const [rule, h, r, storages, message, required = null, available = null, unit = null] of refusals) {
    it(`refuses by ${rule}: ${message}`, () => {
      assert.deepEqual(evaluate([h], storages, r), {
        candidates: [],
        rejections: [{ hostId: 1, hostName: 'h1', rule, message, required, available, unit }],
      });
      assert.equal(best([h], storages, r), null);
    });
  }

  it('takes what fits exactly', () => {
    const tight = request({ vcpus: 8, memoryMib: 4_096, diskBytes: 1_000 });
    assert.deepEqual(evaluate([host()], [storage()], tight).candidates, [
      { hostId: 1, hostName: 'h1', storageId: 1, score: 0.25 },
    ]);
  });

  it('scores by the scarcer of CPU and memory, and prefers the older host among equals', () => {
    const hosts = [
      host({ id: 3, vcpusFree: 16, memoryFreeMib: 8_192 }),
      host({ id: 2, vcpusFree: 12, memoryFreeMib: 16_384 }),
      host({ id: 1, vcpusFree: 16, memoryFreeMib: 8_192 }),
    ];
    const { candidates } = evaluate(hosts, [storage()], request());
    assert.deepEqual(
      candidates.map((c) => [c.hostId, c.score]),
      [
        [2, 0.75],
        [1, 0.5],
        [3, 0.5],
      ],
    );
  });

  it('takes the roomiest storage of the cluster, and none when no volume is to be made', () => {
    const storages = [
      storage(),
      storage({ id: 2, bytesFree: 2_000 }),
      storage({ id: 3, bytesFree: 9_000, enabled: false }),
    ];
    assert.equal(best([host()], storages, request())?.storageId, 2);
    assert.equal(best([host()], [], request({ diskBytes: 0 }))?.storageId, null);
  });

  it('a host without capacity scores nothing and takes only what needs nothing', () => {
    const empty = host({ vcpusCap: 0, vcpusFree: 0, memoryCapMib: 0, memoryFreeMib: 0 });
    assert.equal(best([empty], [storage()], request({ vcpus: 0, memoryMib: 0 }))?.score, 0);
  });

  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  it(`judges the same by both ways and never chooses a host without room, in random worlds (SEED=${seed})`, () => {
    const roll = dice(seed);
    for (let world = 0; world < 2_000; world++) {
      const hosts = Array.from({ length: roll(12) }, (_, i) =>
        host({
          id: i + 1,
          zoneId: 1 + roll(2),
          clusterId: 1 + roll(3),
          wantedState: roll(5) === 0 ? 'DISABLED' : 'ENABLED',
          parentsEnabled: roll(6) > 0,
          linkState: roll(5) === 0 ? 'UNREACHABLE' : 'UP',
          vcpusCap: 8,
          vcpusFree: roll(31) - 20,
          memoryCapMib: 1_024,
          memoryFreeMib: roll(1_200) - 100,
        }),
      );
      const storages = Array.from({ length: roll(5) }, (_, i) =>
        storage({ id: i + 1, clusterId: 1 + roll(3), enabled: roll(4) > 0, bytesFree: roll(300) }),
      );
      const asked = request({
        clusterId: roll(3) === 0 ? 1 + roll(3) : null,
        hostId: roll(5) === 0 ? 1 + roll(12) : null,
        vcpus: roll(6),
        memoryMib: roll(600),
        diskBytes: roll(3) === 0 ? 0 : roll(200),
        storageClusterId: roll(4) === 0 ? 1 + roll(3) : null,
      });
      const verdict = evaluate(hosts, storages, asked);
      const message = `SEED=${seed} world ${world}`;
      assert.deepEqual(best(hosts, storages, asked), verdict.candidates[0] ?? null, message);
      assert.equal(verdict.candidates.length + verdict.rejections.length, hosts.length, message);
      for (const candidate of verdict.candidates) {
        const chosen = hosts.find((h) => h.id === candidate.hostId)!;
        assert.ok(chosen.linkState === 'UP' && chosen.wantedState === 'ENABLED' && chosen.parentsEnabled, message);
        assert.ok(chosen.zoneId === asked.zoneId && (asked.vcpus === 0 || chosen.vcpusFree >= asked.vcpus), message);
        assert.ok(asked.memoryMib === 0 || chosen.memoryFreeMib >= asked.memoryMib, message);
        if (asked.diskBytes === 0) continue;
        const on = storages.find((s) => s.id === candidate.storageId)!;
        assert.ok(on.enabled && on.clusterId === chosen.clusterId && on.bytesFree >= asked.diskBytes, message);
      }
      for (const r of verdict.rejections)
        if (r.available !== null) assert.ok(r.required! > r.available && r.available >= 0, message);
    }
  });
});
