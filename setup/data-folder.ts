import { resolve } from 'node:path';

/** Where everything lies that this checkout makes: `.virtgraph`, or what VIRTGRAPH_DATA names. */
export const dataFolder = resolve(process.env['VIRTGRAPH_DATA'] ?? resolve(import.meta.dirname, '../.virtgraph'));
