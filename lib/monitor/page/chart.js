/** A line of the last five minutes, the newest value at the right. */
const namespace = 'http://www.w3.org/2000/svg';
const [width, height, samples] = [300, 48, 149];

export function chart(kind, title, values, words) {
  const element = document.createElement('div');
  element.className = 'chart';
  const known = values.filter((value) => value !== null && value !== Infinity);
  const top = Math.max(...known, 0);
  const label = document.createElement('p');
  const [now, most] = [document.createElement('b'), document.createElement('span')];
  const last = values.at(-1);
  now.textContent = last === undefined ? 'collecting' : last === null ? 'none' : words(last);
  most.textContent = top > 0 ? `most ${words(top)}` : '';
  label.append(title, now, most);
  const svg = document.createElementNS(namespace, 'svg');
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', `${title}: ${now.textContent} ${most.textContent}`);
  const points = values.map((value, at) => {
    const x = width * (samples - values.length + 1 + at) / samples;
    const part = value === null || top === 0 ? 0 : Math.min(1, value / top);
    return [x, height - 1 - part * (height - 4)];
  });
  const line = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join(' L');
  if (points.length > 1) {
    svg.append(path(`area ${kind}`, `M${points[0][0].toFixed(1)} ${height} L${line} ` +
      `L${width} ${height} Z`), path(kind, `M${line}`));
  }
  element.append(label, svg);
  return element;
}

function path(kind, d) {
  const element = document.createElementNS(namespace, 'path');
  element.setAttribute('class', kind);
  element.setAttribute('d', d);
  return element;
}
