import { join } from 'node:path';
import { test } from 'node:test';
import { tinyLinux } from '../support/guest.ts';
import { lacksOwnNetwork, runInOwnNetwork } from './own-network.ts';

const lacking = lacksOwnNetwork();
if (lacking) test('VMs on a bridge', { skip: lacking }, () => undefined);
else {
  // Before the way out is cut off: its first making fetches a kernel.
  await tinyLinux();
  await runInOwnNetwork(join(import.meta.dirname, 'qemu-network-tests.ts'));
}
