import type { WriteStream } from 'node:tty';
import { stripVTControlCharacters, styleText } from 'node:util';

export interface StepView {
  /** In camel case, as workflows name their steps. */
  name: string;
  /** UNDO takes back what a step before has done. */
  direction: string;
  state: string;
  /** Of `unit`; null where the step can't tell. */
  done: number | null;
  total: number | null;
  unit: string | null;
  /** Of `unit` per second. */
  rate: number | null;
  etaMs: number | null;
  message: string | null;
}

export interface JobView {
  title: string;
  state: string;
  progressPercent: number;
  etaMs: number | null;
  steps: readonly StepView[];
}

const BAR_CELLS = 24;
const NAME_CELLS = 22;
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `share` from 0 to 1; what is outside counts as the nearer end. */
export function progressBar(share: number, cells = BAR_CELLS): string {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * cells);
  return '█'.repeat(filled) + '░'.repeat(cells - filled);
}

export function formatBytes(bytes: number): string {
  const power = Math.min(UNITS.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const amount = bytes / 1024 ** power;
  return `${power === 0 ? Math.round(amount) : amount.toFixed(1)} ${UNITS[power]}`;
}

export function formatDuration(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A job as lines, the first its heading; plain text, or with colours. */
export function formatJob(job: JobView, colour: boolean): string[] {
  const left = job.etaMs === null || isOver(job.state) ? '' : `, ${formatDuration(job.etaMs)} left`;
  const heading = `${job.title}  ${progressBar(job.progressPercent / 100)} ${Math.round(job.progressPercent)} %${left}`;
  return [paint(colour, 'bold', heading), ...job.steps.map((step) => `  ${formatStep(step, colour)}`)];
}

export function formatStep(step: StepView, colour: boolean): string {
  const [mark, style] = MARKS[step.state] ?? ['·', 'dim'];
  const name = stepName(step).padEnd(NAME_CELLS);
  const facts = [amount(step), rate(step), timeLeft(step), step.message].filter((fact) => fact !== null);
  return `${paint(colour, style, mark)} ${name} ${facts.join('  ')}`.trimEnd();
}

function stepName({ name, direction }: StepView): string {
  const words = name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).replace(/\bvm\b/, 'VM');
  return direction === 'UNDO' ? `undo: ${words}` : words;
}

const MARKS: Record<string, [string, 'green' | 'red' | 'cyan' | 'dim']> = {
  OPEN: ['▸', 'cyan'],
  DONE: ['✔', 'green'],
  FAILED: ['✘', 'red'],
  SKIPPED: ['·', 'dim'],
};
const OVER = new Set(['SUCCEEDED', 'DONE', 'FAILED', 'CANCELLED', 'SKIPPED', 'NEEDS_ATTENTION']);

/** Whether a job or step in `state` changes no more. */
export function isOver(state: string): boolean {
  return OVER.has(state);
}

function amount({ done, total, unit }: StepView): string | null {
  if (done === null || total === null || total === 0) return null;
  return `${progressBar(done / total)} ${quantity(done, unit)} of ${quantity(total, unit)}`;
}

function rate({ rate: perSecond, unit, state }: StepView): string | null {
  if (perSecond === null || perSecond <= 0 || isOver(state)) return null;
  return `${quantity(perSecond, unit)}/s`;
}

function timeLeft({ etaMs, state }: StepView): string | null {
  return etaMs === null || isOver(state) ? null : `${formatDuration(etaMs)} left`;
}

function quantity(value: number, unit: string | null): string {
  if (unit?.toLowerCase() === 'bytes') return formatBytes(value);
  return unit ? `${Math.round(value)} ${unit.toLowerCase()}` : String(Math.round(value));
}

function paint(colour: boolean, style: Parameters<typeof styleText>[0], text: string): string {
  return colour ? styleText(style, text, { validateStream: false }) : text;
}

/** Which lines of `next` to print after `previous` where nothing can be drawn over: those whose step changed state. */
export function plainChanges(previous: JobView | null, next: JobView): string[] {
  const before = previous?.steps.map(milestone) ?? [];
  return next.steps
    .filter((step, index) => before[index] !== milestone(step))
    .map((step) => `  ${formatStep(step, false)}`);
}

/** A quarter of the way is worth a line of its own. */
function milestone({ state, done, total }: StepView): string {
  return `${state} ${done === null || !total ? 0 : Math.floor((done / total) * 4)}`;
}

/** What draws `lines` over `drawn` lines that stand above the cursor; none is wider than the screen. */
export function redraw(drawn: number, lines: readonly string[], columns: number): string {
  const up = drawn === 0 ? '' : `\x1b[${drawn}A`;
  return `${up}\x1b[J${lines.map((line) => `${clip(line, columns)}\n`).join('')}`;
}

/** A line that wraps would be counted wrong at the next redraw. */
function clip(line: string, columns: number): string {
  const plain = stripVTControlCharacters(line);
  return plain.length < columns ? line : plain.slice(0, columns - 1);
}

/** Draws a job that changes: over itself on a terminal, as further lines elsewhere. */
export class JobDisplay {
  readonly #out: NodeJS.WriteStream & Partial<WriteStream>;
  #last: JobView | null = null;
  #drawn = 0;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
  }

  show(job: JobView): void {
    if (this.#out.isTTY) {
      const lines = formatJob(job, this.#out.hasColors?.() ?? false);
      this.#out.write(redraw(this.#drawn, lines, this.#out.columns ?? 80));
      this.#drawn = lines.length;
    } else {
      if (this.#last === null) this.#out.write(`${job.title}\n`);
      for (const line of plainChanges(this.#last, job)) this.#out.write(`${line}\n`);
    }
    this.#last = job;
  }
}
