import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  test: {
    include: ['**/*.test.ts'],
    globalSetup: fileURLToPath(new URL('./setup/bundle.js', import.meta.url)),
    pool: 'forks',
    maxWorkers: Math.max(2, availableParallelism() - 1), // agents mostly wait: two files at once are faster on one core, too
    execArgv: ['--disable-warning=ExperimentalWarning', '--expose-gc'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ['default', fileURLToPath(new URL('./setup/reporter.ts', import.meta.url))],
  },
});
