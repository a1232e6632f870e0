import type { ColumnType } from 'kysely';

/** Given by the database unless a write says otherwise. */
export type Defaulted<T> = ColumnType<T, T | undefined, T>;
/** Read as the database writes it, in UTC: `2026-11-24 14:48:09.782000`. Most are only passed on. */
export type Timestamp = ColumnType<string, Date | string | undefined, Date | string>;
export type NullableTimestamp = ColumnType<string | null, Date | string | null | undefined, Date | string | null>;
