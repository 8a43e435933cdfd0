import { readFileSync } from 'node:fs';

type TableFile = '/etc/passwd' | '/etc/group';

/** A row of /etc/passwd or /etc/group (passwd(5), group(5)). */
interface Row {
  readonly name: string;
  /** A uid or a gid. */
  readonly id: number;
  /** The gid of a user; the members of a group, with commas between. */
  readonly fourth: string;
}

/** The text of a table; a container may have none. */
function readTable(file: TableFile): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
    throw error;
  }
}

function* rowsOf(text: string): Generator<Row> {
  for (const line of text.split('\n')) {
    const [name, , id = '', fourth = ''] = line.split(':');
    if (name && /^\d+$/.test(id)) yield { name, id: Number(id), fourth };
  }
}

const rows = (file: TableFile): Generator<Row> => rowsOf(readTable(file));

/**
 * Name of a local user, or undefined where /etc/passwd has none. Users of a directory service show as numbers:
 * asking for them could block the agent on a network.
 */
export function findUserName(uid: number): string | undefined {
  for (const { name, id } of rows('/etc/passwd')) if (id === uid) return name;
  return undefined;
}

function findId(file: TableFile, wanted: string): number | undefined {
  for (const { name, id } of rows(file)) if (name === wanted) return id;
  return undefined;
}

/** The uid of a local user. */
export const findUserId = (name: string): number | undefined => findId('/etc/passwd', name);

/** The gid of a local group. */
export const findGroupId = (name: string): number | undefined => findId('/etc/group', name);

/** Two of the system's tables, as text. */
export interface UserTables {
  readonly passwd: string;
  readonly group: string;
}

/**
 * Whether a group is a local user's own, with nobody else in it: it is the user's first, is named as the user is (as useradd(8) makes it, and so
 * that no directory service has others in it), nobody else's first, and has no other member.
 */
export function isOwnGroup(uid: number, gid: number, tables?: UserTables): boolean {
  const { passwd, group } = tables ?? { passwd: readTable('/etc/passwd'), group: readTable('/etc/group') };
  const firstOf = [...rowsOf(passwd)].filter(({ fourth }) => Number(fourth) === gid);
  const names = new Set(firstOf.map(({ name }) => name));
  const groups = [...rowsOf(group)].filter(({ id }) => id === gid);
  const isAlone = ({ name, fourth }: Row): boolean => [name, ...fourth.split(',').filter(Boolean)].every((member) => names.has(member));
  return names.size > 0 && firstOf.every(({ id }) => id === uid) && groups.length > 0 && groups.every(isAlone);
}
