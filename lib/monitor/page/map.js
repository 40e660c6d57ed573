/** The dirty map as a picture: the volume from its beginning to its end, row by row. */
import { bytes } from './words.js';

const side = 11;
const gap = 2;

export function drawMap(figure, { mediaSize, cellBytes, peerStale, localStale, hot, syncingAt }) {
  const canvas = figure.querySelector('canvas');
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const width = canvas.clientWidth || 300;
  const columns = Math.max(1, Math.floor((width + gap) / (side + gap)));
  const rows = Math.ceil(peerStale.length / columns);
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round((rows * (side + gap) - gap) * scale);
  canvas.style.height = `${rows * (side + gap) - gap}px`;
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  const dirty = { peer: 0, here: 0, hot: 0 };
  peerStale.forEach((peer, at) => {
    const [x, y] = [(at % columns) * (side + gap), Math.floor(at / columns) * (side + gap)];
    const paint = (name, share) => {
      context.globalAlpha = share;
      context.fillStyle = colour(name);
      context.fillRect(x, y, side, side);
    };
    // One block in a large cell is seen too.
    const share = (value) => 0.35 + 0.65 * Math.min(1, value / cellBytes);
    paint('clean', 1);
    if (hot[at] > 0) paint('hot', 1);
    if (localStale[at] > 0) paint('here', share(localStale[at]));
    if (peer > 0) paint('peer', share(peer));
    dirty.hot += hot[at] > 0 ? 1 : 0;
    dirty.here += localStale[at];
    dirty.peer += peer;
    if (at !== syncingAt) return;
    context.globalAlpha = 1;
    context.strokeStyle = colour('text');
    context.lineWidth = 2;
    context.strokeRect(x + 1, y + 1, side - 2, side - 2);
  });
  figure.querySelector('figcaption').textContent =
    `Dirty map: ${bytes(mediaSize)}, ${bytes(cellBytes)} a square`;
  const said = [['clean', 'equal'], ['peer', `the peer lacks ${bytes(dirty.peer)}`]];
  if (dirty.hot > 0) said.push(['hot', 'hot: being written']);
  if (dirty.here > 0) said.push(['here', `only the peer has ${bytes(dirty.here)}`]);
  figure.querySelector('.legend').replaceChildren(...said.map(([name, words]) => {
    const span = document.createElement('span');
    span.className = name;
    span.textContent = words;
    return span;
  }));
  canvas.setAttribute('aria-label', said.map(([, words]) => words).join(', '));
  canvas.dataset.peerLacks = String(dirty.peer);
}
