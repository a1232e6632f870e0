import './command.ts';
import './session.ts';
import { builder } from './builder.ts';

/** The schema that hosts speak; schema/hostd.graphql is its printed form. */
export const hostdSchema = builder.toSchema();
