// Two plots of the last minutes, as SVG: latency from commit to bus, and events a second. Times in which something was broken are
// shaded. What they show is said in a sentence below, too.

import { count, duration, make, rate, write } from './write.js';

const spans = [60, 120, 300]; // seconds: what a page that was just opened has is not squeezed into a corner
const [width, height] = [600, 150]; // of the drawing; it is stretched to the figure
const sayAgain = 5000; // ms between changes of what a screen reader reads

const broken = new Set(); // seconds in which a fault was on
let plots = [];
let series = null;

export function start() {
  if (plots.length > 0) return;
  plots = [
    new Plot('latency', 'Latency from commit to bus over the last minutes', ['p50', 'p99'], decades, ofLatency),
    new Plot('throughput', 'Events a second over the last minutes', ['committed', 'published'], linear, ofThroughput),
  ];
}

export function take(message) {
  series = message;
}

// show draws the series that has come since the last state.
export function show(state) {
  if (state.switches.some((s) => s.on)) {
    broken.add(Math.floor(Date.parse(state.at) / 1000));
    for (const second of broken) {
      if (broken.size <= spans.at(-1)) break;
      broken.delete(second);
    }
  }
  if (!series) return;
  for (const plot of plots) plot.draw(series);
  series = null;
}

// A scale has marks, from the bottom to the top, and places a value between 0 and 1.
function decades() {
  const [low, high] = [1, 5]; // 10 ms to 100 s: a fixed scale does not jump when something breaks
  const marks = [10, 100, 1000, 10_000, 100_000].map((ms) => [ms, ms < 1000 ? `${ms} ms` : `${ms / 1000} s`]);
  const place = (ms) => (Math.log10(Math.max(ms, 1)) - low) / (high - low);
  return { marks, place };
}

function linear(values) {
  const most = Math.max(10, ...values);
  const step = 10 ** Math.floor(Math.log10(most));
  const top = [1, 2, 5, 10].map((n) => n * step).find((n) => n >= most);
  return { marks: [0, top / 2, top].map((n) => [n, count(n)]), place: (n) => n / top };
}

class Plot {
  constructor(name, title, keys, scale, summary) {
    const figure = document.querySelector(`[data-plot=${name}]`);
    Object.assign(this, { keys, scale, summary, said: 0, sentence: figure.querySelector('.summary') });
    this.svg = svg('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-labelledby': `${name}-what ${name}-how` });
    const what = svg('title', { id: `${name}-what` });
    what.textContent = title;
    this.how = svg('desc', { id: `${name}-how` });
    this.bands = svg('path', { class: 'bands' });
    this.grid = svg('path', { class: 'grid' });
    this.lines = keys.map((key, i) => svg('path', { class: `line ${i === 0 ? 'a' : 'b'}` }));
    this.svg.append(what, this.how, this.bands, this.grid, ...[...this.lines].reverse());
    this.labels = make('div', 'labels');
    this.labels.setAttribute('aria-hidden', 'true');
    const times = make('div', 'times');
    times.setAttribute('aria-hidden', 'true');
    this.since = make('span');
    times.append(this.since, make('span', '', 'now'));
    figure.querySelector('.frame').append(this.labels, this.svg, times);
  }

  draw(data) {
    const last = data.seconds.at(-1) ?? 0;
    const span = spans.find((s) => s >= data.seconds.length) ?? spans.at(-1);
    write(this.since, `${span / 60} min ago`);
    const x = (second) => width - ((last - second) * width) / (span - 1);
    const scale = this.scale(this.keys.flatMap((key) => data[key]).filter((v) => v !== null));
    const y = (value) => height - Math.min(1, Math.max(0, scale.place(value))) * (height - 2) - 1;
    this.showMarks(scale, y);
    this.keys.forEach((key, i) => {
      let path = '';
      let before = null;
      data.seconds.forEach((second, j) => {
        const value = data[key][j];
        if (value !== null && last - second < span) {
          const joined = before !== null && second - before <= 1;
          // A second alone is a short stroke: a line of one point is not drawn.
          path += joined ? `L${x(second).toFixed(1)} ${y(value).toFixed(1)}` : `M${(x(second) - 1).toFixed(1)} ${y(value).toFixed(1)}h1`;
          before = second;
        }
      });
      this.lines[i].setAttribute('d', path);
    });
    let bands = '';
    for (const second of broken) if (last - second < span && second <= last) bands += `M${x(second - 1).toFixed(1)} 0h${(width / (span - 1) + 0.1).toFixed(1)}v${height}h-${(width / (span - 1) + 0.1).toFixed(1)}z`;
    this.bands.setAttribute('d', bands);
    const text = this.summary(data);
    write(this.sentence, text);
    if (performance.now() - this.said > sayAgain) {
      this.said = performance.now();
      write(this.how, text);
    }
  }

  showMarks(scale, y) {
    while (this.labels.children.length < scale.marks.length) this.labels.append(make('span'));
    scale.marks.forEach(([value, text], i) => {
      const label = this.labels.children[i];
      write(label, text);
      label.style.setProperty('top', `${(y(value) / height) * 100}%`);
    });
    this.grid.setAttribute('d', scale.marks.map(([value]) => `M0 ${y(value).toFixed(1)}H${width}`).join(''));
  }
}

function svg(tag, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function ofLatency(data) {
  const at = data.p50.findLastIndex((v) => v !== null);
  if (at < 0) return 'No event has arrived in the last minutes.';
  const slowest = Math.max(...data.p99.filter((v) => v !== null));
  const when = at >= data.seconds.length - 3 ? 'Now' : `${duration((data.seconds.length - 1 - at) * 1000)} ago`;
  return `${when}: p50 ${duration(data.p50[at])}, p99 ${duration(data.p99[at])}. Slowest: ${duration(slowest)}.`;
}

function ofThroughput(data) {
  const [committed, published] = [data.committed.at(-1) ?? 0, data.published.at(-1) ?? 0];
  const most = Math.max(0, ...data.published);
  return `Now: ${rate(committed)} committed, ${rate(published)} on the bus. Most on the bus: ${rate(most)}.`;
}
