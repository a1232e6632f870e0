import { readFile, readdir } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { Stage } from './support/stage.ts';
import { createRealVm } from './support/real-host.ts';
import { startByHand } from './compare/raw-qemu.ts';
const stage = await Stage.open({ databaseUrl: process.env['DATABASE_URL']! });
try {
  const vm = await createRealVm(stage);
  for (let i = 0; i < 6; i++) {
    console.log('raw', (await startByHand(vm.spec, vm.accelerator, stage.folder)).toFixed(0));
    await pause(1500);
    const t = Date.now(); const r = vm.settled('RUNNING');
    await vm.control.api.mutate('startVm', { id: vm.id }, 'vm { id }'); const answered = Date.now() - t;
    await r; const ran = Date.now() - t;
    await pause(1500);
    const s = vm.settled('STOPPED'); await vm.control.api.mutate('stopVm', { id: vm.id, force: true }, 'vm { id }'); await s;
    const logs = (await readdir(stage.folder)).filter((f) => f.endsWith('hostd.log'));
    const lines = (await readFile(stage.folder + '/' + logs[0], 'utf8')).trim().split('\n').map((l) => JSON.parse(l)).filter((l) => l.time >= t - 5 && l.time <= t + ran + 50);
    console.log('ours answered', answered, 'running', ran, lines.map((l) => `${l.time - t}:${l.msg}:${l.state ?? l.kind ?? l.command ?? ''}`).join(' | '));
  }
} finally { await stage.close(); }
