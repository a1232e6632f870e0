import type { HostLinkState, HostWantedState } from './host-state.ts';

/** What placement knows of a host. Numbers are what the database said last, less what this process has placed since. */
export interface PlacementHost {
  id: number;
  name: string;
  clusterId: number;
  zoneId: number;
  /** The host itself, its cluster, pod and zone are all wanted. */
  wantedState: HostWantedState;
  parentsEnabled: boolean;
  linkState: HostLinkState;
  vcpusFree: number;
  vcpusCap: number;
  memoryFreeMib: number;
  memoryCapMib: number;
}

export interface PlacementStorage {
  id: number;
  name: string;
  clusterId: number;
  enabled: boolean;
  bytesFree: number;
  bytesCap: number;
}

export interface PlacementRequest {
  zoneId: number;
  clusterId: number | null;
  hostId: number | null;
  vcpus: number;
  memoryMib: number;
  /** Room that the volumes to create need; 0: the volumes are there already. */
  diskBytes: number;
  /** Storage that the volumes are on already: only hosts of its cluster reach it. */
  storageClusterId: number | null;
}

export type PlacementRule =
  | 'ZONE'
  | 'CLUSTER'
  | 'HOST'
  | 'STORAGE_REACH'
  | 'ENABLED'
  | 'CONNECTED'
  | 'VCPUS'
  | 'MEMORY'
  | 'STORAGE';

/** Why a host may not have the VM, with the numbers where there are any. */
export interface PlacementRejection {
  hostId: number;
  hostName: string;
  rule: PlacementRule;
  message: string;
  required: number | null;
  available: number | null;
  unit: string | null;
}

export interface PlacementCandidate {
  hostId: number;
  hostName: string;
  storageId: number | null;
  /** 0 to 1; higher is better. */
  score: number;
}

export interface PlacementVerdict {
  /** Best first. */
  candidates: PlacementCandidate[];
  rejections: PlacementRejection[];
}

interface Refusal {
  message: string;
  required?: number;
  available?: number;
  unit?: string;
}

type Rule = (host: PlacementHost, request: PlacementRequest, storage: PlacementStorage | null) => Refusal | null;

/**
 * In the order in which a person would ask: is it the right place, may it, can it be reached, has it room. The first
 * that refuses is the answer.
 */
const RULES: Record<PlacementRule, Rule> = {
  ZONE: (host, request) => (host.zoneId === request.zoneId ? null : { message: 'It is in another zone.' }),
  CLUSTER: (host, request) =>
    request.clusterId === null || host.clusterId === request.clusterId
      ? null
      : { message: 'It is in another cluster.' },
  HOST: (host, request) =>
    request.hostId === null || host.id === request.hostId ? null : { message: 'Another host was asked for.' },
  STORAGE_REACH: (host, request) =>
    request.storageClusterId === null || request.storageClusterId === host.clusterId
      ? null
      : { message: 'It does not reach the storage that the volumes are on.' },
  ENABLED: (host) => {
    if (!host.parentsEnabled) return { message: 'Its cluster, pod or zone is disabled.' };
    return host.wantedState === 'ENABLED' ? null : { message: 'It is disabled.' };
  },
  CONNECTED: (host) => (host.linkState === 'UP' ? null : { message: `Its link is ${host.linkState}.` }),
  VCPUS: (host, request) =>
    hasRoom(host.vcpusFree, request.vcpus) ? null : short(request.vcpus, host.vcpusFree, host.vcpusCap, 'vCPUs', ''),
  MEMORY: (host, request) =>
    hasRoom(host.memoryFreeMib, request.memoryMib)
      ? null
      : short(request.memoryMib, host.memoryFreeMib, host.memoryCapMib, 'memory', ' MiB'),
  STORAGE: (_host, request, storage) => {
    if (request.diskBytes === 0) return null;
    if (!storage) return { message: 'Its cluster has no enabled primary storage.' };
    if (storage.bytesFree >= request.diskBytes) return null;
    return short(
      request.diskBytes,
      storage.bytesFree,
      storage.bytesCap,
      `room on primary storage ${storage.name}`,
      ' B',
    );
  },
};
const ORDER = Object.entries(RULES) as [PlacementRule, Rule][];

/** What needs nothing fits even where a cap was lowered below what is in use. */
const hasRoom = (free: number, needed: number): boolean => needed === 0 || free >= needed;

const BYTE_UNITS = [
  [2 ** 30, ' GiB'],
  [2 ** 20, ' MiB'],
  [2 ** 10, ' KiB'],
] as const;

/** The largest in which all of so many bytes are whole, so that a person reads short numbers that add up. */
const wholeUnit = (...bytes: number[]) =>
  BYTE_UNITS.find(([scale]) => bytes.every((amount) => amount % scale === 0)) ?? ([1, ' B'] as const);

/** Below zero, where a cap was lowered or others are about to take more than there is, nothing is free. */
function short(required: number, free: number, cap: number, what: string, unit: string): Refusal {
  const available = Math.max(free, 0);
  const missing = required - available;
  const [scale, shown] = unit === ' B' ? wholeUnit(required, available, cap) : ([1, unit] as const);
  const [needs, has, ofAll, lacks] = [required, available, cap, missing].map((amount) => `${amount / scale}${shown}`);
  return {
    message: `Not enough ${what}: ${needs} needed, ${has} of ${ofAll} free, ${lacks} missing.`,
    required,
    available,
    unit: unit.trim() || what,
  };
}

/** The one judge of placement: create, start and "why not?" all ask it. Pure; the guarded write decides in the end. */
export function evaluate(
  hosts: Iterable<PlacementHost>,
  storages: Iterable<PlacementStorage>,
  request: PlacementRequest,
): PlacementVerdict {
  const roomiest = roomiestStorages(storages);
  const verdict: PlacementVerdict = { candidates: [], rejections: [] };
  for (const host of hosts) {
    const storage = roomiest.get(host.clusterId) ?? null;
    const rejection = judge(host, request, storage);
    if (rejection) verdict.rejections.push(rejection);
    else
      verdict.candidates.push({
        hostId: host.id,
        hostName: host.name,
        storageId: request.diskBytes > 0 ? storage!.id : null,
        score: score(host),
      });
  }
  verdict.candidates.sort((a, b) => b.score - a.score || a.hostId - b.hostId);
  return verdict;
}

/** The first candidate of `evaluate` without the rest of its answer. */
export function best(
  hosts: Iterable<PlacementHost>,
  storages: Iterable<PlacementStorage>,
  request: PlacementRequest,
): PlacementCandidate | null {
  const roomiest = roomiestStorages(storages);
  let winner: PlacementHost | null = null;
  let high = -1;
  for (const host of hosts) {
    if (refusing(host, request, roomiest.get(host.clusterId) ?? null)) continue;
    const points = score(host);
    if (points > high || (points === high && host.id < winner!.id)) {
      winner = host;
      high = points;
    }
  }
  if (!winner) return null;
  const storageId = request.diskBytes > 0 ? roomiest.get(winner.clusterId)!.id : null;
  return { hostId: winner.id, hostName: winner.name, storageId, score: high };
}

function refusing(
  host: PlacementHost,
  request: PlacementRequest,
  storage: PlacementStorage | null,
): { rule: PlacementRule; refusal: Refusal } | null {
  for (const [rule, check] of ORDER) {
    const refusal = check(host, request, storage);
    if (refusal) return { rule, refusal };
  }
  return null;
}

function judge(
  host: PlacementHost,
  request: PlacementRequest,
  storage: PlacementStorage | null,
): PlacementRejection | null {
  const found = refusing(host, request, storage);
  if (!found) return null;
  const { rule, refusal } = found;
  return {
    hostId: host.id,
    hostName: host.name,
    rule,
    message: refusal.message,
    required: refusal.required ?? null,
    available: refusal.available ?? null,
    unit: refusal.unit ?? null,
  };
}

/** Spreads: the larger share free of whichever is scarcer, CPU or memory. */
function score(host: PlacementHost): number {
  const cpu = host.vcpusCap === 0 ? 0 : host.vcpusFree / host.vcpusCap;
  const memory = host.memoryCapMib === 0 ? 0 : host.memoryFreeMib / host.memoryCapMib;
  return Math.max(0, Math.min(cpu, memory));
}

function roomiestStorages(storages: Iterable<PlacementStorage>): Map<number, PlacementStorage> {
  const roomiest = new Map<number, PlacementStorage>();
  for (const storage of storages) {
    if (!storage.enabled) continue;
    const known = roomiest.get(storage.clusterId);
    if (!known || storage.bytesFree > known.bytesFree) roomiest.set(storage.clusterId, storage);
  }
  return roomiest;
}
