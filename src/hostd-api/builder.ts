import SchemaBuilder from '@pothos/core';
import { GraphQLScalarType } from 'graphql';
import { VirtgraphError } from '../domain/errors.ts';
import type { HostdContext } from './context.ts';

/** The second builder: the schema that hosts speak. */
export const builder = new SchemaBuilder<{
  Context: HostdContext;
  DefaultFieldNullability: false;
  DefaultInputFieldRequiredness: true;
  Scalars: { BigInt: { Input: number; Output: string | number } };
}>({
  plugins: [],
  // Required by type alone: the public builder's plugin widens the options of every builder in the program.
  relay: {},
  defaultFieldNullability: false,
  defaultInputFieldRequiredness: true,
});

/** Counters fit a double: 2^53 bytes are 8 PiB, 2^53 ns are 104 days of one CPU; beyond, precision is what is lost. */
builder.addScalarType(
  'BigInt',
  new GraphQLScalarType({
    name: 'BigInt',
    description: 'A number beyond 2^53, as a decimal string.',
    serialize: String,
    parseValue(value) {
      const number = Number(value);
      if ((typeof value !== 'string' && typeof value !== 'number') || !Number.isFinite(number) || number < 0)
        throw new VirtgraphError({
          code: 'INVALID_INPUT',
          message: 'BigInt takes a decimal number that is not negative.',
        });
      return number;
    },
  }),
);
