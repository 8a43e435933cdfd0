#!/usr/bin/env node
// Plain JavaScript that imports nothing statically, so that an old Node gets a clear message instead of a syntax error.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 12)) {
  console.error(`kms: needs Node 22.12 or newer, this is ${process.versions.node}.`);
  process.exit(2);
}
await import('../dist/bundle/main.js');
