import { GraphQLError } from 'graphql';
import { builder } from './builder.ts';

const invalid = (message: string): GraphQLError => new GraphQLError(message, { extensions: { code: 'INVALID_INPUT' } });

/** `2026-11-24 14:48:09.782000`, in UTC. A page of objects holds hundreds, so nothing is parsed. */
const ofDatabase = (text: string): string => `${text.slice(0, 10)}T${text.slice(11, 23)}Z`;

builder.scalarType('DateTime', {
  description: 'A moment in UTC, RFC 3339 with milliseconds: `2026-11-24T13:37:00.123Z`.',
  specifiedByURL: 'https://www.rfc-editor.org/rfc/rfc3339',
  serialize: (value) => (typeof value === 'string' ? ofDatabase(value) : value.toISOString()),
  parseValue: (value) => {
    const date = typeof value === 'string' ? new Date(value) : null;
    if (!date || Number.isNaN(date.getTime())) throw invalid('A DateTime is a string like `2026-11-24T13:37:00Z`.');
    return date;
  },
});

builder.scalarType('BigInt', {
  description: 'A whole number that may be larger than 2^53, as a string of decimal digits.',
  serialize: String,
  parseValue: (value) => {
    if (typeof value === 'number' ? Number.isSafeInteger(value) : typeof value === 'string' && /^-?\d+$/.test(value))
      return BigInt(value as number | string);
    throw invalid('A BigInt is a string of decimal digits.');
  },
});
