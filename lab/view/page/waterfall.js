// The hops of an event as bars on one axis of time. A bar reaches from the hop before to its own
// hop. Each hop is a button that shows its record.

import { attribute, byId, duration, signs, write } from './write.js';

const list = byId('hops');
let told = () => {};

export const named = (title, i) => `${i < 6 ? `${signs[i + 1]} ` : ''}${title}`;

// onChoose calls the listener with the place of the hop that the reader has chosen, from 0.
export function onChoose(listener) {
  told = listener;
}

export function clear() {
  list.replaceChildren();
}

// draw takes the hops' titles, and their times in ms or null where the event has not been. Clocks
// of two machines may differ a little.
export function draw(hops) {
  const times = hops.map(([, at]) => at).filter((at) => at !== null);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const share = (at) => (last > first ? Math.max(0, (at - first) / (last - first)) : 0);
  let before = first;
  hops.forEach(([title, at], i) => {
    const line = list.children[i] ?? add(i);
    write(line.querySelector('button'), named(title, i));
    const bar = line.querySelector('.bar-of-hop');
    bar.hidden = at === null;
    write(line.querySelector('.after'), at === null ? '–' : `+${duration(at - first)}`);
    if (at === null) return;
    const from = Math.min(before, at);
    bar.style.setProperty('--from', share(from));
    bar.style.setProperty('--share', share(at) - share(from));
    before = Math.max(before, at);
  });
}

function add(i) {
  const line = byId('hop-template').content.cloneNode(true).firstElementChild;
  const button = line.querySelector('button');
  button.setAttribute('aria-controls', `record-${i + 1}`);
  button.addEventListener('click', () => {
    told(i);
    choose(i);
  });
  list.append(line);
  return line;
}

// choose shows the record of one hop.
export function choose(place) {
  [...list.children].forEach((line, i) => {
    attribute(line.querySelector('button'), 'aria-expanded', String(i === place));
    byId(`record-${i + 1}`).hidden = i !== place;
  });
}
