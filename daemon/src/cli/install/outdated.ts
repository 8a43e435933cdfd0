import { chmodSync, statSync } from 'node:fs';
import { serviceUnit } from './unit-names.ts';
import type { Manager } from './units.ts';

/** The clocks of this machine in milliseconds: that of the wall, and CLOCK_MONOTONIC. */
export interface Clocks {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

const readClocks = (): Clocks => ({ wallMs: Date.now(), monotonicMs: Number(process.hrtime.bigint() / 1000n) / 1000 });

type Service = Pick<Manager, 'units' | 'program' | 'systemctl'>;

/** Whatever changes the service leaves a new time of change at one of these. */
const pathsOf = ({ units, program }: Service): string[] => [...program, ...units.map(([path]) => path)];

const changedMs = (path: string): number => statSync(path, { throwIfNoEntry: false })?.ctimeMs ?? 0;

/**
 * When the service began: by the wall clock of then, or what the one of now makes of the time that has passed, whichever is earlier. A clock that was set
 * since has moved one of them past what was changed later; a restart too many does no harm, one too few leaves the old program running.
 */
function startedMs({ systemctl }: Service, { wallMs, monotonicMs }: Clocks): number {
  const ask = (property: string): string => systemctl('show', '--timestamp=us+utc', `--property=${property}`, '--value', serviceUnit);
  const wall = Date.parse(ask('ExecMainStartTimestamp').replace(/^\w+ (\S+) (\S+) UTC$/, '$1T$2Z'));
  const passed = monotonicMs - Number(ask('ExecMainStartTimestampMonotonic')) / 1000;
  return Math.min(wall, wallMs - passed);
}

/** Whether the service began before its program or its units were as they are now; an earlier run that stopped halfway may have changed them. */
export function isOutdated(service: Service, clocks: Clocks = readClocks()): boolean {
  return !(startedMs(service, clocks) >= Math.floor(Math.max(...pathsOf(service).map(changedMs))));
}

/** What this user cannot date: a program of root's that a user's agent runs, or what lies where nobody can write now. */
const isUndatable = (error: unknown): boolean => error instanceof Error && 'code' in error && (error.code === 'EPERM' || error.code === 'EROFS');

/** Gives what was changed under a clock that was ahead the time of now, where this user may: each start would seem to be before it. */
export function dateAnew(service: Service, { wallMs }: Pick<Clocks, 'wallMs'> = readClocks()): void {
  for (const path of pathsOf(service).filter((changed) => changedMs(changed) > wallMs)) {
    try {
      chmodSync(path, statSync(path).mode & 0o7777);
    } catch (error) {
      if (!isUndatable(error)) throw error;
    }
  }
}
