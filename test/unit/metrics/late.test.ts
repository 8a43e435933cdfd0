import { execFileSync } from 'node:child_process';
import { copyFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { repository, TempFolder } from '../../kit/agent.ts';

test('figures whose library could not be loaded are loaded when they are asked for again', () => {
  using folder = new TempFolder();
  const compiled = join(repository, 'daemon', 'dist', 'metrics');
  copyFileSync(join(compiled, 'late.js'), folder.join('late.mjs'));
  copyFileSync(join(compiled, 'answers.js'), folder.join('answers.js'));
  symlinkSync(join(repository, 'node_modules'), folder.join('node_modules'));
  const script = `
    import { copyFileSync } from 'node:fs';
    import { LateMetrics } from ${JSON.stringify(folder.join('late.mjs'))};
    const figures = { unlocked: true, keys: 3, connections: 0, inFlight: 0, audit: { health: 'ok', seq: 0 }, providers: [], warnings: 0 };
    const metrics = new LateMetrics('1.2.3', () => figures);
    console.log(await metrics.load().then(() => 'loaded', ({ code }) => code));
    copyFileSync(${JSON.stringify(join(compiled, 'registry.js'))}, ${JSON.stringify(folder.join('registry.js'))});
    console.log(/^kms_agent_keys.* 3$/m.test((await metrics.expose()).text));`;
  const out = execFileSync(process.execPath, ['--no-warnings', '--input-type=module', '-e', script]);
  expect(out.toString().split('\n')).toEqual(['ERR_MODULE_NOT_FOUND', 'true', '']);
});
