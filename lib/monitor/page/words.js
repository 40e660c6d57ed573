/** Numbers as people read them. */
const sizes = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value) {
  let at = 0;
  let size = value;
  while (size >= 1000 && at < sizes.length - 1) {
    size /= 1024;
    at++;
  }
  return `${at === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${sizes[at]}`;
}

export function rate(value) {
  return `${bytes(value)}/s`;
}

/** A short time: of a request. */
export function seconds(value) {
  if (value === null) return '';
  if (value === Infinity) return 'over 67 s';
  if (value < 1e-3) return `${Math.round(value * 1e6)} µs`;
  return value < 1 ? `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(1)} s`;
}

/** A long time. */
export function span(value) {
  if (value < 0.05) return '0 s';
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return value < 172800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86400)} days`;
}

/** The time of day; with the date where it is not today. */
export function clock(ms) {
  const at = new Date(ms);
  const time = at.toTimeString().slice(0, 8);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? time : `${at.toLocaleDateString('en-CA')} ${time}`;
}
