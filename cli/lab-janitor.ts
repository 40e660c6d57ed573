/**
 * Waits beside a lab until the process that opened it is gone, and then removes what it left,
 * also when it was killed. Argument: the lab's folder. `done` on stdin: nothing is left.
 */
import { removeLab } from './lab-remains.ts';

const directory = process.argv[2] ?? '';
let heard = '';
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
process.stdin.setEncoding('utf8');
process.stdin.on('error', () => undefined);
process.stdin.on('data', (text: string) => {
  heard += text;
});
process.stdin.on('close', () => {
  if (heard.includes('done')) return;
  removeLab(directory).then((problems) => {
    process.exit(problems.length === 0 ? 0 : 1);
  }, () => process.exit(1));
});
