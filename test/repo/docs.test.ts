import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, it } from 'node:test';
import { parse, validate } from 'graphql';
import { DOCUMENTS } from '../../docs/generate.ts';
import { schema } from '../../src/graphql/schema.ts';
import { hostdSchema } from '../../src/hostd-api/schema.ts';

const ROOT = join(import.meta.dirname, '../..');

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const inDocs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.md'))
  .map((path) => `docs/${path}`);
const documents = ['README.md', 'CONTRIBUTING.md', ...inDocs];

/** The text without what stands in fences: examples are no links. */
const prose = (text: string): string => text.replace(/^```.*?^```/gms, '');

/** As GitHub and its like make them of headings. */
function anchorsOf(text: string): Set<string> {
  const headings = [...prose(text).matchAll(/^#+ (.+)$/gm)].map(([, heading]) => heading!);
  return new Set(
    headings.map((heading) =>
      heading
        .trim()
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

describe('the documents', () => {
  for (const [name, generate] of Object.entries(DOCUMENTS))
    it(`say in ${name} what the code says`, () => {
      assert.ok(read(`docs/${name}`) === generate(), `docs/${name} is stale: run npx node docs/generate.ts`);
    });

  it('link to what is there, and to headings that are there', () => {
    const broken = documents.flatMap((document) =>
      [...prose(read(document)).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target]) => {
        if (/^[a-z]+:/.test(target!)) return [];
        const [path = '', anchor] = target!.split('#');
        const file = path === '' ? document : relative(ROOT, join(ROOT, dirname(document), path));
        if (!existsSync(join(ROOT, file))) return [`${document} links to ${target}, which is not there`];
        if (anchor !== undefined && !anchorsOf(read(file)).has(anchor))
          return [`${document} links to ${target}, which has no such heading`];
        return [];
      }),
    );
    assert.deepEqual(broken, []);
  });

  it('name files of the repository that are there', () => {
    const paths = /`((?:src|hostd|setup|schema|test|bench|docs)\/[\w./-]+)`/g;
    const missing = documents.flatMap((document) =>
      [...prose(read(document)).matchAll(paths)]
        .map(([, path]) => path!)
        .filter((path) => !existsSync(join(ROOT, path)))
        .map((path) => `${document}: ${path}`),
    );
    assert.deepEqual(missing, []);
  });

  it('hold no mark of a merge that was not finished', () => {
    const marked = documents.filter((document) => /^(?:<{7}|={7}|>{7})(?: |$)/m.test(read(document)));
    assert.deepEqual(marked, []);
  });

  it('are each linked from their index', () => {
    const index = read('docs/README.md');
    const unlinked = inDocs.filter((path) => path !== 'docs/README.md' && !index.includes(`(${path.slice(5)})`));
    assert.deepEqual(unlinked, []);
  });

  it('show operations that the graph, or that of hosts, takes', () => {
    let shown = 0;
    for (const document of documents)
      for (const [, block] of read(document).matchAll(/^```graphql\n(.*?)^```/gms)) {
        shown++;
        const of = document === 'docs/hostd-protocol.md' ? hostdSchema : schema;
        const errors = validate(of, parse(block!)).map(({ message }) => message);
        assert.deepEqual(errors, [], `${document}:\n${block}`);
      }
    assert.ok(shown > 0);
  });

  it('tell of every metric of ours', () => {
    const sources = [read('src/control.ts'), read('src/http/metrics.ts')].join('\n');
    const named = [...sources.matchAll(/name: '(virtgraph_\w+)'/g)].map(([, name]) => name!);
    const gauges = [...sources.matchAll(/\bgauge\(\s*'(\w+)'/g)].map(([, name]) => `virtgraph_${name}`);
    assert.ok(named.length > 0 && gauges.length > 0);
    const told = read('docs/operations.md');
    assert.deepEqual(
      [...named, ...gauges].filter((name) => !told.includes(`\`${name}\``)),
      [],
    );
  });

  it('name no absolute path of a machine', () => {
    const own = documents.filter((document) => /(^|[\s`(])\/(work|home|root|Users)\//m.test(read(document)));
    assert.deepEqual(own, []);
  });
});
