/** Every parser of the project that meets bytes from outside. */
import { diskTargets } from './disk-targets.ts';
import { fuseTargets } from './fuse-target.ts';
import { httpTargets } from './http-target.ts';
import type { FuzzTarget } from './property.ts';
import { sessionTargets } from './session-target.ts';
import { textTargets } from './text-targets.ts';
import { wireTargets } from './wire-targets.ts';

export const fuzzTargets: readonly FuzzTarget[] = [
  ...wireTargets, ...diskTargets, ...textTargets, ...fuseTargets, ...sessionTargets,
  ...httpTargets,
];
