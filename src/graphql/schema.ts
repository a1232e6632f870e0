import './scalars.ts';
import './viewer.ts';
import './zone.ts';
import './pod.ts';
import './cluster.ts';
import './host.ts';
import './primary-storage.ts';
import './offering.ts';
import './template.ts';
import './domain.ts';
import './account.ts';
import './quota.ts';
import './user.ts';
import './project-member.ts';
import './role.ts';
import './api-key.ts';
import './session.ts';
import './sign-in.ts';
import './sign-in-provider.ts';
import './identity-provider.ts';
import './vm.ts';
import './vm-mutations.ts';
import './vm-screenshot.ts';
import './volume.ts';
import './job.ts';
import './event.ts';
import './audit.ts';
import './audit-verification.ts';
import './node.ts';
import './placement.ts';
import './subscriptions.ts';
import { builder } from './builder.ts';

builder.queryType({ description: 'What can be asked.' });
builder.mutationType({ description: 'What can be done. Each takes one `input` and answers with what became of it.' });

/** The public graph. */
export const schema = builder.toSchema({ sortSchema: true });
