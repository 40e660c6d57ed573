/** The result as one SVG: a panel of bars for each job, rendered without a browser. */
import * as echarts from 'echarts';
import { jobs, type Job } from './jobs.ts';
import { qemuCaveat } from './report.ts';
import type { BenchResult } from './result.ts';
import { median, medianOf, ratios } from './statistics.ts';

const columns = 2;
const width = 1240;
const headHeight = 80;
const footHeight = 40;
const titleHeight = 34;
const gapHeight = 26;
const barHeight = 22;
const labelWidth = 165;
/** To the right of the longest bar, for its numbers. */
const valueWidth = 130;

interface Bar {
  name: string;
  value: number;
  /** To bare. */
  ratio: number | null;
}

function barsOf({ subjects, measurements }: BenchResult, job: Job): Bar[] {
  const of = (subject: string) => ({ subject, job: job.name, metric: job.metric });
  const bars: Bar[] = [];
  for (const { name } of subjects) {
    // The measure of the resync's rate, over another network.
    if (name === 'resync') continue;
    const value = medianOf(measurements, of(name));
    if (value === null) continue;
    bars.push({ name, value, ratio: median(ratios(measurements, of(name), of('bare'))) });
  }
  return bars;
}

function colorOf(subject: string): string {
  if (subject.startsWith('bare')) return '#8a8f98';
  if (subject.startsWith('qemu')) return '#d98e2b';
  return subject.startsWith('null') ? '#b7bcc4' : '#2f6db5';
}

function labelOf({ value, ratio, name }: Bar): string {
  const rate = Math.round(value).toLocaleString('en');
  return ratio === null || name === 'bare' ? rate : `${rate}  (${ratio.toFixed(2)})`;
}

interface Panel {
  job: Job;
  bars: Bar[];
}

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Rows of panels as high as their highest. */
function layOut(panels: readonly Panel[]): { frames: Frame[]; height: number } {
  const panelWidth = width / columns;
  const frames: Frame[] = [];
  let top = headHeight;
  for (let first = 0; first < panels.length; first += columns) {
    const row = panels.slice(first, first + columns);
    row.forEach(({ bars }, column) => {
      frames.push({
        left: column * panelWidth + labelWidth, top: top + titleHeight,
        width: panelWidth - labelWidth - valueWidth, height: bars.length * barHeight,
      });
    });
    const highest = Math.max(...row.map(({ bars }) => bars.length));
    top += titleHeight + highest * barHeight + gapHeight;
  }
  return { frames, height: top + footHeight };
}

function panelOption({ job, bars }: Panel, index: number, frame: Frame) {
  const unit = job.metric === 'mib' ? 'MiB/s' : 'IOPS';
  return {
    title: {
      text: `${job.what} (${unit})`, left: frame.left - labelWidth + 20, top: frame.top - 30,
      textStyle: { fontSize: 14 },
    },
    grid: { ...frame, containLabel: false },
    xAxis: { type: 'value' as const, gridIndex: index, min: 0, show: false },
    yAxis: {
      type: 'category' as const, gridIndex: index, inverse: true,
      data: bars.map(({ name }) => name), axisTick: { show: false },
      axisLabel: { interval: 0, color: '#222' }, axisLine: { lineStyle: { color: '#bbb' } },
    },
    series: {
      type: 'bar' as const, xAxisIndex: index, yAxisIndex: index, barWidth: '70%',
      label: { show: true, position: 'right' as const, color: '#222' },
      data: bars.map((bar) => ({
        value: bar.value, itemStyle: { color: colorOf(bar.name) },
        label: { formatter: labelOf(bar) },
      })),
    },
  };
}

export function renderChart(result: BenchResult): string {
  const panels = jobs.map((job) => ({ job, bars: barsOf(result, job) }))
    .filter(({ bars }) => bars.length > 0);
  const { frames, height } = layOut(panels);
  const options = panels.map((panel, index) =>
    panelOption(panel, index, frames[index] as Frame));
  const { machine, startedAt } = result;
  const subtext = 'Higher is better; in parentheses the ratio to bare. Medians of ' +
    `${result.options.rounds} rounds; ${machine.processor}, ${machine.cores} cores, ` +
    `Linux ${machine.kernel}; ${startedAt.slice(0, 10)}`;
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height });
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    title: [
      { text: 'hast-linux: fio through the loop device', subtext, left: 20, top: 12 },
      ...options.map(({ title }) => title),
      {
        text: qemuCaveat, left: 20, top: height - 30,
        textStyle: { fontSize: 12, fontWeight: 'normal', color: '#666' },
      },
    ],
    grid: options.map(({ grid }) => grid),
    xAxis: options.map(({ xAxis }) => xAxis),
    yAxis: options.map(({ yAxis }) => yAxis),
    series: options.map(({ series }) => series),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}
