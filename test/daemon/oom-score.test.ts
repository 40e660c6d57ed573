/** Who is killed when memory is short, as far as this machine permits it. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import t from 'tap';
import { exemptFromOom, judgeAsOthers } from '../../lib/daemon/oom-score.ts';

const scoreOf = (pid: number | 'self'): number =>
  Number(fs.readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'));

t.test('oom score: workers inherit it, other children get the former one', async (t) => {
  const former = scoreOf('self');
  judgeAsOthers(process.pid);
  t.equal(scoreOf('self'), former, 'nothing was lowered yet');
  const refused = exemptFromOom();
  t.equal(scoreOf('self'), refused === null ? -1000 : former);
  const child = spawn('sleep', ['10']);
  t.teardown(() => child.kill());
  t.equal(scoreOf(child.pid as number), scoreOf('self'));
  judgeAsOthers(child.pid);
  t.equal(scoreOf(child.pid as number), former);
  judgeAsOthers(undefined);
  if (refused !== null) t.pass(`NOT TESTED: ${refused}`, { skip: true });
  else fs.writeFileSync('/proc/self/oom_score_adj', String(former));
});
