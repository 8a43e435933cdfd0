import type { Reporter, TestModule } from 'vitest/node';

/** Names what was skipped and closes the run with one plain line. With CI=true a skip is a failure: everything that tests need can be installed there. */
export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const counts = { passed: 0, failed: errors.length, skipped: 0 };
    for (const module of modules) {
      if (module.state() === 'failed' && module.errors().length > 0) counts.failed += 1;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'pending') continue;
        counts[state] += 1;
        if (state === 'skipped') console.log(`skipped: ${module.relativeModuleId} > ${test.fullName}`);
      }
    }
    if (process.env['CI'] === 'true' && counts.skipped > 0) {
      console.log('A skipped test is a failure in CI.');
      process.exitCode = 1;
    }
    console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  }
}
