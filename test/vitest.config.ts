import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  test: {
    include: ['**/*.test.ts'],
    pool: 'forks',
    execArgv: ['--disable-warning=ExperimentalWarning', '--expose-gc'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ['default', fileURLToPath(new URL('./setup/reporter.ts', import.meta.url))],
  },
});
