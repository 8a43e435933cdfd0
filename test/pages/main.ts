import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { repository } from '../kit/agent.ts';
import { makePages } from './pages.ts';

/* `node test/pages/main.ts`: writes the pages that are made from the sources; run it after a change of the commands or the errors. Needs a build. */
for (const [path, text] of makePages()) {
  mkdirSync(dirname(join(repository, path)), { recursive: true });
  writeFileSync(join(repository, path), text);
  console.log(path);
}
