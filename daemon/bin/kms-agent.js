#!/usr/bin/env node
// Plain JavaScript that imports nothing statically: it must give a clear message on any Node, and protect the process before a key can be in it.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 24 || (major === 24 && minor < 15)) {
  console.error(`kms-agent: needs Node 24.15 or newer, this is ${process.versions.node}.`);
  process.exit(2);
}
const refused = ['NODE_OPTIONS', 'OPENSSL_CONF', 'LD_PRELOAD'].find((name) => process.env[name]);
if (refused !== undefined) {
  console.error(`kms-agent: ${refused} is set and could change what runs with the keys; unset it first.`);
  process.exit(2);
}
if (process.execArgv.some((flag) => flag.startsWith('--inspect'))) {
  console.error('kms-agent: does not start under --inspect: a debugger reads every key.');
  process.exit(2);
}
// Flags cannot stand in the first line, so Node replaces itself; the pid that a supervisor knows stays.
const flags = [
  '--disable-sigusr1',
  '--secure-heap=4194304',
  '--secure-heap-min=2',
  '--expose-gc',
  // Fewer collections of what requests leave behind, and while it starts.
  '--max-semi-space-size=16',
  '--min-semi-space-size=8',
  '--disable-warning=ExperimentalWarning',
];
if (!process.execArgv.includes('--disable-sigusr1')) {
  // Node marks inherited descriptors close-on-exec: those that are meant for us must survive, a secret's and systemd's socket.
  const passed = process.argv.flatMap((argument, index) =>
    /^--(passphrase|secret)-fd$/.test(argument) ? [process.argv[index + 1]] : (argument.match(/^--(?:passphrase|secret)-fd=(.*)$/)?.slice(1) ?? []),
  );
  const descriptors = [...passed, ...(process.env.LISTEN_FDS ? ['3'] : [])].map(Number).filter((fd) => Number.isInteger(fd) && fd > 2);
  if (descriptors.length > 0) {
    const { keepAcrossExec } = await import('../dist/os/libc.js');
    for (const fd of descriptors) keepAcrossExec(fd);
  }
  // glibc overwrites what is freed: not everything in it that held a key was cleansed before. os/garbage.ts gives the variable back.
  const tunables = [process.env.GLIBC_TUNABLES, 'glibc.malloc.perturb=255:glibc.malloc.tcache_count=0'].filter(Boolean).join(':');
  const env = { ...process.env, GLIBC_TUNABLES: tunables };
  process.execve(process.execPath, [process.execPath, ...flags, process.argv[1], ...process.argv.slice(2)], env);
}
if (process.argv[2] === 'serve') (await import('../dist/bundle/early-signals.js')).keepSignals();
await import('../dist/bundle/main.js');
