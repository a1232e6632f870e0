import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import {
  allowedVmActions,
  decideVm,
  VM_ACTIONS,
  VM_STATES,
  VM_TRANSITIONS,
  type VmState,
  vmStateAfter,
} from '../../src/domain/vm-state.ts';

/** The whole behaviour: a state that it goes to, `=` for satisfied already, `.` for refused. */
const TABLE = `
            START    STOP     REBOOT   RESET   PAUSE  RESUME  UPDATE  DESTROY   RECOVER EXPUNGE
CREATING    .        .        .        .       .      .       .       .         .       .
STOPPED     STARTING =        .        .       .      .       STOPPED DESTROYED =       .
STARTING    .        .        .        .       .      .       .       .         .       .
RUNNING     =        STOPPING STOPPING RUNNING PAUSED =       RUNNING STOPPING  .       .
PAUSED      .        STOPPING .        PAUSED  =      RUNNING PAUSED  STOPPING  .       .
STOPPING    .        .        .        .       .      .       .       .         .       .
DESTROYED   .        .        .        .       .      .       .       =         STOPPED EXPUNGING
EXPUNGING   .        .        .        .       .      .       .       .         .       .
EXPUNGED    .        .        .        .       .      .       .       .         .       =
ERROR       .        .        .        .       .      .       ERROR   DESTROYED .       .
`;

describe('the states of a VM', () => {
  it('answer every action as the table says', () => {
    const cell = (state: VmState, action: (typeof VM_ACTIONS)[number]): string => {
      const decision = decideVm(state, action);
      return { go: decision.kind === 'go' ? decision.to : '', already: '=', deny: '.' }[decision.kind];
    };
    const rows = TABLE.trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/));
    assert.deepEqual(rows[0], [...VM_ACTIONS]);
    assert.deepEqual(
      VM_STATES.map((state) => [state, ...VM_ACTIONS.map((action) => cell(state, action))]),
      rows.slice(1),
    );
  });

  it('allow what would change something, and say so when they refuse', () => {
    for (const state of VM_STATES) {
      const allowed = allowedVmActions(state);
      for (const action of VM_ACTIONS) {
        const decision = decideVm(state, action);
        assert.equal(allowed.includes(action), decision.kind === 'go', `${state} ${action}`);
        if (decision.kind === 'deny') assert.deepEqual(decision, { kind: 'deny', state, allowed });
      }
    }
  });

  it('know every event, from the states that the workflows name', () => {
    const folder = new URL('../../src/jobs/', import.meta.url);
    const used: [VmState, string][] = [];
    for (const file of readdirSync(folder)) {
      const text = readFileSync(new URL(file, folder), 'utf8');
      for (const [, from, event] of text.matchAll(/(?:moveVm\(\s*\w+,\s*\w+,|vmStateAfter\()\s*'(\w+)',\s*'(\w+)'/g))
        used.push([from as VmState, event!]);
    }
    assert.ok(used.length >= 8, `found only ${used.length} transitions in the sources`);
    for (const [from, event] of used) assert.ok(VM_TRANSITIONS[from][event as 'STARTED'], `${from} ${event}`);
  });

  it('lead only to states, and a pair that is not in the table is a fault', () => {
    for (const events of Object.values(VM_TRANSITIONS))
      for (const to of Object.values(events)) assert.ok(VM_STATES.includes(to));
    assert.equal(vmStateAfter('STARTING', 'STARTED'), 'RUNNING');
    assert.throws(() => vmStateAfter('EXPUNGED', 'START'), /EXPUNGED knows no START/);
  });

  it('can all be reached, and all but the last can be left', () => {
    const reached = new Set<VmState>(['CREATING']);
    for (const state of reached) for (const to of Object.values(VM_TRANSITIONS[state])) reached.add(to);
    assert.deepEqual([...reached].sort(), [...VM_STATES].sort());
    for (const state of VM_STATES) assert.equal(Object.keys(VM_TRANSITIONS[state]).length === 0, state === 'EXPUNGED');
  });
});
