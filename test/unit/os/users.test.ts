import { expect, test } from 'vitest';
import { isOwnGroup } from '../../../daemon/src/os/users.ts';

const bob = 'root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n';
const carol = (gid: number): string => `carol:x:1001:${gid}::/home/carol:/bin/sh\n`;

test.each<[isOwn: boolean, what: string, passwd: string, group: string]>([
  [true, 'a group of the user’s name, with nobody else', bob + carol(1001), 'root:x:0:\nbob:x:1000:\ncarol:x:1001:\n'],
  [true, 'one that names the user as its member', bob, 'bob:x:1000:bob\n'],
  [false, 'one that is the first of another user too', bob + carol(1000), 'bob:x:1000:\n'],
  [false, 'one that many share', bob.replace('1000:1000', '1000:100') + carol(100), 'users:x:100:\n'],
  [false, 'one with another member', bob + carol(1001), 'bob:x:1000:bob,carol\n'],
  [false, 'one that is not named as the user is: a directory service may have others in it', bob, 'users:x:1000:\n'],
  [false, 'one that stands there under a second name', bob, 'bob:x:1000:\nteam:x:1000:\n'],
  [false, 'one that is not the first of the user', bob + carol(1001), 'bob:x:2000:\n'],
  [false, 'one that no table has', bob, ''],
  [false, 'one of a user that no table has', '', 'bob:x:1000:\n'],
])('isOwnGroup: %s for %s', (isOwn, _what, passwd, group) => {
  const gid = Number(/^\w+:x:1000:(\d+)/m.exec(passwd)?.[1] ?? 1000);
  expect(isOwnGroup(1000, /2000/.test(group) ? 2000 : gid, { passwd, group })).toBe(isOwn);
});
