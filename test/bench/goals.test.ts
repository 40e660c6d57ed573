import t from 'tap';
import { evaluate, goals, isInGoals, type Goal } from './goals.ts';
import { jobNames } from './jobs.ts';
import type { Measurement } from './result.ts';
import { subjects } from './subjects.ts';

const over = { subject: 'fullsync', job: 'write-32', metric: 'iops' } as const;
const under = { ...over, subject: 'bare' };

function measured(...values: [number, number][]): Measurement[] {
  return values.flatMap(([first, second], index) => [
    { subject: 'fullsync', job: 'write-32', round: index + 1, values: { iops: first } },
    { subject: 'bare', job: 'write-32', round: index + 1, values: { iops: second } },
  ]);
}

function verdictOf(aim: Partial<Goal>, ...values: [number, number][]): string | undefined {
  const table = [{ what: 'x', over, under, ...aim }];
  return evaluate(measured(...values), () => null, table)[0]?.verdict;
}

t.test('goals: verdicts', async (t) => {
  t.equal(verdictOf({ atLeast: 0.5 }, [50, 100]), 'met');
  t.equal(verdictOf({ atLeast: 0.5 }, [49, 100]), 'missed');
  t.equal(verdictOf({ atLeast: 3.5, floor: 2.5 }, [300, 100]), 'floor met');
  t.equal(verdictOf({ atLeast: 3.5, floor: 2.5 }, [240, 100]), 'missed');
  t.equal(verdictOf({ atMost: 0.75 }, [75, 100]), 'met');
  t.equal(verdictOf({ atMost: 0.75 }, [76, 100]), 'missed');
  t.equal(verdictOf({}, [50, 100]), '', 'for comparison only');
  t.equal(verdictOf({ atLeast: 0.5 }, [10, 100], [60, 100], [70, 100]), 'met', 'the median');
  t.equal(verdictOf({ atLeast: 0.5, notYet: 'later' }, [90, 100]), 'not run');
});

t.test('goals: what was not measured says why', async (t) => {
  const table = [{ what: 'x', over, under, atLeast: 0.5 }];
  const why = (subject: string) => subject === 'bare' ? 'fio is not installed' : null;
  const [result] = evaluate([], why, table);
  t.match(result, { verdict: 'not run', ratio: null, problem: 'fio is not installed' });
  const [other] = evaluate([], () => null, table);
  t.match(other?.problem, /not measured/);
});

t.test('goals: the table speaks of subjects and jobs that exist', async (t) => {
  const special = ['bare-sparse', 'fullsync-sparse', 'resync'];
  const known = [...subjects.map(({ name }) => name), ...special];
  const jobsKnown = [...jobNames, 'hot', 'resync-random'];
  for (const { over, under, notYet } of goals) {
    for (const { subject, job } of notYet === undefined ? [over, under] : [under]) {
      t.ok(known.includes(subject), subject);
      t.ok(jobsKnown.includes(job), job);
    }
  }
  t.ok(isInGoals('bare', 'sync'));
  t.notOk(isInGoals('qemu', 'sync'));
});
