import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from '../kit/agent.ts';
import { readSurfaces } from './surfaces.ts';

/* `node test/pages/freeze.ts`: promises what is built now. Run it at a release; never to make a red test green. */
writeFileSync(join(repository, 'test/fixtures/surfaces-1.json'), `${JSON.stringify(readSurfaces(), undefined, 2)}\n`);
