import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { describe, it } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');

/** What a folder of src may import, beside itself and packages. */
const MAY_IMPORT: Record<string, string[]> = {
  domain: [],
  db: ['domain'],
  jobs: ['db', 'domain'],
  // Accepting a mutation writes the job and its first step: ops use the workflows' pure part, never the engine.
  egress: ['domain'],
  // What speaks with identity providers keeps nothing and knows no database.
  'sign-in': ['domain', 'egress'],
  ops: ['db', 'domain', 'jobs', 'egress', 'sign-in'],
  hosts: ['db', 'domain'],
  // Loops file jobs like everyone else.
  loops: ['db', 'domain', 'jobs', 'ops', 'hosts'],
  graphql: ['db', 'domain', 'ops'],
  'hostd-api': ['db', 'domain', 'hosts'],
  'peer-api': ['domain'],
  http: ['domain', 'db', 'graphql'],
};
const COMPOSITION = ['core.ts', 'control.ts', 'main.ts'];
const NEVER: [from: RegExp, to: RegExp, why: string][] = [
  [/^src\/ops\//, /^src\/jobs\/engine\.ts$/, 'ops enqueue by writing a job; they never run one'],
  [/^src\/(?!main\.ts|core\.ts|control\.ts)/, /^src\/(main|core|control)\.ts$/, 'only the composition root composes'],
];

/** Packages that are loaded when they are first used, not with the control plane: they take memory that few need. */
const ON_DEMAND = ['openid-client', 'ldapts'];

const files = (folder: string): string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|mjs)$/.test(entry.name))
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)));

/** Paths, from the root, of the files that a file imports; packages are left out. */
function imported(file: string): string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((match) =>
    normalize(join(dirname(file), match[1]!)),
  );
}

/** Paths and packages that are loaded before a file runs: what is imported, but for types, and not when it is needed. */
function loadedWith(file: string): string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  return [...text.matchAll(/^(?:import|export)\s(?!type\b)(?:[^;']*\sfrom\s)?\s*'([^']+)'/gm)].map(([, name]) =>
    name!.startsWith('.') ? normalize(join(dirname(file), name!)) : name!,
  );
}

const folderOf = (path: string): string => path.split('/')[1]!;

describe('import rules', () => {
  it('layers of the control plane import only what is below them', () => {
    const broken = files('src').flatMap((file) =>
      imported(file).flatMap((target) => {
        const from = folderOf(file);
        const to = folderOf(target);
        if (COMPOSITION.includes(from) || from === to) return [];
        return MAY_IMPORT[from]?.includes(to) ? [] : [`${file} imports ${target}`];
      }),
    );
    assert.deepEqual(broken, []);
  });

  it('every folder of the control plane has a rule', () => {
    const folders = new Set(
      files('src')
        .map(folderOf)
        .filter((name) => !name.endsWith('.ts')),
    );
    assert.deepEqual(
      [...folders].filter((name) => !(name in MAY_IMPORT)),
      [],
    );
  });

  it('some imports are never allowed', () => {
    const broken = files('src').flatMap((file) =>
      imported(file).flatMap((target) =>
        NEVER.filter(([from, to]) => from.test(file) && to.test(target)).map(
          ([, , why]) => `${file} imports ${target}: ${why}`,
        ),
      ),
    );
    assert.deepEqual(broken, []);
  });

  it('the host daemon and the control plane know each other by the protocol alone', () => {
    const broken = [
      ...files('hostd').filter((file) => imported(file).some((target) => target.startsWith('src/'))),
      ...files('src').filter((file) => imported(file).some((target) => target.startsWith('hostd/'))),
    ];
    assert.deepEqual(broken, []);
  });

  it('what few need is loaded by those alone who need it', () => {
    const reached = new Set(['src/control.ts']);
    for (const name of reached) if (name.endsWith('.ts')) for (const next of loadedWith(name)) reached.add(next);
    assert.ok(reached.has('src/ops/oidc-sign-in.ts') && reached.has('graphql'), 'the search finds what is loaded');
    assert.deepEqual(
      ON_DEMAND.filter((name) => reached.has(name)),
      [],
    );
  });

  it('products import nothing from tests, benchmarks or the set-up', () => {
    const broken = [...files('src'), ...files('hostd')].filter((file) =>
      imported(file).some((target) => /^(test|bench|setup)\//.test(target)),
    );
    assert.deepEqual(broken, []);
  });
});

describe('files', () => {
  const all = ['src', 'hostd', 'setup', 'schema', 'test', 'bench'].flatMap(files);

  it('are at most 500 lines long', () => {
    const long = all
      .filter((file) => !file.includes('/generated/'))
      .map((file) => ({ file, lines: readFileSync(join(ROOT, file), 'utf8').split('\n').length }))
      .filter(({ lines }) => lines > 500);
    assert.deepEqual(long, []);
  });

  it('are not called by names that explain nothing', () => {
    const vague = /(^|\/)(utils?|common|lib|helpers?|services|managers?|index)(\/|\.ts$)/;
    assert.deepEqual(
      all.filter((file) => vague.test(file)),
      [],
    );
  });

  it('of the products read the environment only in their composition roots', () => {
    const readers = [...files('src'), ...files('hostd')].filter((file) =>
      readFileSync(join(ROOT, file), 'utf8').includes('process.env'),
    );
    assert.deepEqual(readers.sort(), ['hostd/main.ts', 'src/main.ts']);
  });

  it('of the products start no shell', () => {
    const shells = [...files('src'), ...files('hostd')].filter((file) => {
      const text = readFileSync(join(ROOT, file), 'utf8');
      return /shell:\s*true|\bexec\(|execSync\(|['"](\/bin\/)?(ba)?sh['"]/.test(text.replace(/\.exec\(/g, ''));
    });
    assert.deepEqual(shells, []);
  });
});
