import { type Benchmark, type Figure, isMet } from './benchmark.ts';

/** What one benchmark gave, as `--json` prints it. */
export interface Result {
  name: string;
  ok: boolean;
  figures: Figure[];
}

export const resultOf = ({ name }: Benchmark, figures: Figure[]): Result => ({
  name,
  ok: figures.every((figure) => isMet(figure)),
  figures,
});

const COLUMNS = ['', 'measured', 'unit', 'due', 'aim', ''];

/** A table for a terminal: what was measured, and beside it what it must and what it should be. */
export function tableOf({ about }: Benchmark, { figures }: Result): string {
  const lines = [COLUMNS, ...figures.map(lineOf)];
  const widths = COLUMNS.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  const isNumber = (column: number): boolean => column === 1 || column === 3 || column === 4;
  const table = lines.map((line) =>
    line
      .map((cell, column) => (isNumber(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
      .join('  ')
      .trimEnd(),
  );
  return [about, ...table].join('\n');
}

function lineOf(figure: Figure): string[] {
  const { what, value, unit, bound } = figure;
  if (!bound) return [what, shown(value), unit, '', '', ''];
  const sign = bound.is === 'at most' ? '≤' : '≥';
  const limit = (of: number | undefined): string => (of === undefined ? '' : `${sign} ${shown(of)}`);
  return [what, shown(value), unit, limit(bound.due), limit(bound.aim), verdictOn(figure)];
}

function verdictOn(figure: Figure): string {
  if (!isMet(figure)) return 'MISSED';
  return figure.bound?.aim !== undefined && isMet(figure, 'aim') ? 'met, and its aim' : 'met';
}

function shown(value: number): string {
  const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
