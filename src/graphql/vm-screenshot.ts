import { VirtgraphError } from '../domain/errors.ts';
import { builder } from './builder.ts';
import type { GraphContext } from './context.ts';
import { loadersOf } from './loaders.ts';
import { uidOf } from './public-id.ts';

interface Screenshot {
  base64: string;
  takenAt: Date;
}

const ScreenshotRef = builder.objectRef<Screenshot>('Screenshot').implement({
  description: 'What a VM shows on its screen.',
  fields: (t) => ({
    mimeType: t.string({ description: 'Of the picture: `image/png`.', resolve: () => 'image/png' }),
    base64: t.exposeString('base64', { description: 'The picture.' }),
    takenAt: t.expose('takenAt', { type: 'DateTime', description: 'When.' }),
  }),
});

/** @throws VirtgraphError INVALID_STATE when the VM is off, and what the host agent throws */
async function takeScreenshot(context: GraphContext, id: string): Promise<Screenshot | null> {
  const vm = await loadersOf(context).findByUid('vm', uidOf('vm', id, ['id']));
  if (!vm) return null;
  if (vm.host_id === null)
    throw new VirtgraphError({ code: 'INVALID_STATE', message: 'The VM is off: it shows nothing.', path: ['id'] });
  const png = await context.agent.screenshot(vm.host_id, vm.uid);
  return { base64: png.toString('base64'), takenAt: new Date() };
}

builder.queryField('vmScreenshot', (t) =>
  t.field({
    type: ScreenshotRef,
    nullable: true,
    description: 'What a VM shows on its screen now, asked of its host; null when there is no such VM.',
    args: { id: t.arg.id({ required: true, description: 'The id of the VM.' }) },
    extensions: { cost: { own: 50 } },
    resolve: (_root, { id }, context) => takeScreenshot(context, id),
  }),
);
