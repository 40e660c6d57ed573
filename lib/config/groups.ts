/** Groups of this machine, by name or number: for `control-group`. */
import * as fs from 'node:fs';

const file = '/etc/group';
const gidMax = 0xffff_fffe;

/**
 * The number of a group: of a name in /etc/group, or the number itself. Null where there is none;
 * a group of another source (LDAP) is given by its number.
 */
export function groupId(group: string): number | null {
  if (/^[0-9]{1,10}$/.test(group)) return Number(group) <= gidMax ? Number(group) : null;
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  const found = lines.map((line) => line.split(':')).find(([name]) => name === group);
  return found === undefined ? null : Number(found[2]);
}
