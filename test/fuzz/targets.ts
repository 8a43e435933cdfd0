import type { Target } from './target.ts';
import { audit } from './targets/audit.ts';
import { blobs } from './targets/blobs.ts';
import { cli } from './targets/cli.ts';
import { frames } from './targets/frames.ts';
import { keys } from './targets/keys.ts';
import { keyslots } from './targets/keyslots.ts';
import { params } from './targets/params.ts';
import { policies } from './targets/policies.ts';
import { settings } from './targets/settings.ts';
import { uris } from './targets/uris.ts';
import { vault } from './targets/vault.ts';
import { wire } from './targets/wire.ts';

/** Everything that is fuzzed. */
export const targets: readonly Target[] = [frames, wire, params, blobs, vault, keyslots, keys, audit, settings, policies, uris, cli];
