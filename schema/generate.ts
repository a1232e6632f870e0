/**
 * Generates the types that hostd is written against: `node schema/generate.ts` writes `hostd/generated/protocol.ts`
 * from `schema/hostd.graphql`, `--check` compares instead and exits 1 when the committed file is stale.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { codegen } from '@graphql-codegen/core';
import * as typescript from '@graphql-codegen/typescript';
import { type DocumentNode, Kind, parse } from 'graphql';

const SOURCE = new URL('hostd.graphql', import.meta.url);
const TARGET = new URL('../hostd/generated/protocol.ts', import.meta.url);
const HEADER = '// Generated from schema/hostd.graphql by schema/generate.ts. Do not edit.\n';

const TYPESCRIPT_CONFIG = {
  enumsAsTypes: true,
  immutableTypes: true,
  skipTypename: true,
  strictScalars: true,
  useTypeImports: true,
  // Answers always carry every field that was selected; inputs may leave out what is null.
  avoidOptionals: { field: true, object: true, inputValue: false, defaultValue: false },
  scalars: { ID: 'string', BigInt: 'string' },
};

/**
 * Each interface as the union of its implementers, told apart by `__typename`. The plugin's own rendering of an
 * interface is a base type, which a `switch` can't narrow.
 */
function interfaceUnions(document: DocumentNode): string {
  const unions = document.definitions
    .filter((node) => node.kind === Kind.INTERFACE_TYPE_DEFINITION)
    .map(({ name, description }) => {
      const members = document.definitions
        .filter((node) => node.kind === Kind.OBJECT_TYPE_DEFINITION)
        .filter((node) => node.interfaces?.some((parent) => parent.name.value === name.value))
        .map((node) => `  | ({ readonly __typename: '${node.name.value}' } & ${node.name.value})`);
      return `/** ${description?.value ?? ''} */\nexport type ${name.value} =\n${members.join('\n')};\n`;
    });
  return `\n${unions.join('\n')}`;
}

function withoutInterfaces(document: DocumentNode): DocumentNode {
  return {
    ...document,
    definitions: document.definitions
      .filter((node) => node.kind !== Kind.INTERFACE_TYPE_DEFINITION)
      .map((node) => (node.kind === Kind.OBJECT_TYPE_DEFINITION ? { ...node, interfaces: [] } : node))
      // A subscription's type names the interface, which only the unions below know.
      .filter((node) => !('name' in node) || !['Query', 'Mutation', 'Subscription'].includes(node.name?.value ?? '')),
  };
}

/** The text of `hostd/generated/protocol.ts` for the SDL of the host protocol. */
export async function generateProtocol(sdl: string): Promise<string> {
  const document = parse(sdl);
  return codegen({
    filename: TARGET.pathname,
    schema: withoutInterfaces(document),
    documents: [],
    config: {},
    plugins: [{ header: {} }, { typescript: TYPESCRIPT_CONFIG }, { unions: {} }],
    pluginMap: {
      header: { plugin: () => ({ prepend: [HEADER], content: '' }) },
      typescript,
      unions: { plugin: () => interfaceUnions(document) },
    },
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } });
  const wanted = await generateProtocol(await readFile(SOURCE, 'utf8'));
  if (!values.check) {
    await mkdir(new URL('.', TARGET), { recursive: true });
    await writeFile(TARGET, wanted);
    return;
  }
  const committed = await readFile(TARGET, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (committed !== wanted) {
    console.error('hostd/generated/protocol.ts is stale: run node schema/generate.ts');
    process.exitCode = 1;
  }
}

if (import.meta.main) await main();
