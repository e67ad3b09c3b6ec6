// The last minutes as lanes on one axis of time. They show what passed each hop in each second, the
// latency from commit to bus, and the faults as bands in the lane of the hop that they strike. The
// server keeps all of it, so that it is there after a reload, too.

import { attribute, byId, clock, count, duration, make, rate, write } from './write.js';

const spans = [60, 120, 180, 240, 300]; // seconds; the short ones are for a page that has little to show yet
const height = 100; // of a lane in its own units
const decades = [10, 100_000]; // ms; fixed, because a scale that follows the values jumps when something breaks
const gap = 6; // px between the names of two bands

let lanes = []; // of the hops
let latency = null;
let switches = new Map(); // name -> its definition
let series = null; // received, and not drawn yet
let drawn = null;

addEventListener('resize', () => { // the names' places are in px
  series ??= drawn;
  show();
});

export function start(meta) {
  switches = new Map(meta.switches.map((s) => [s.name, s]));
  if (lanes.length > 0) return;
  lanes = meta.hops.map((hop) => add(`${hop.sign} ${hop.name}`));
  latency = add('Commit → bus');
  latency.item.classList.add('latency');
  latency.name.append(make('span', 'legend'));
  latency.name.lastChild.append(make('span', 'key p50', 'p50'), make('span', 'key p99', 'p99'));
  for (const mark of ['100 s', '1 s', '10 ms']) latency.most.append(make('span', '', mark));
}

function add(name) {
  const item = byId('lane-template').content.cloneNode(true).firstElementChild;
  const find = (selector) => item.querySelector(selector);
  const lane = { item, name: find('.lane-name'), most: find('.lane-most'), track: find('.lane-track'), bands: find('.bands'), names: find('.band-names'), svg: find('svg') };
  write(lane.name, name);
  byId('lanes').append(item);
  return lane;
}

export function take(message) {
  series = message;
}

// show draws the series that has come since the last state.
export function show() {
  if (!series || !latency) return;
  const data = series;
  [series, drawn] = [null, data];
  const span = spans.find((s) => s >= data.seconds.length) ?? spans.at(-1);
  const end = (data.seconds.at(-1) ?? 0) + 1;
  write(byId('since'), `${span / 60} min ago`);
  const from = data.seconds.findIndex((second) => second >= end - span);
  const shown = data.passed.map((ofHop) => ofHop.slice(from));
  const most = Math.max(1, ...shown.flat());
  lanes.forEach((lane, i) => {
    attribute(lane.svg, 'viewBox', `0 0 ${span} ${height}`);
    lane.svg.querySelector('.bars').setAttribute('d', bars(shown[i], span, most));
    write(lane.most, `max ${count(Math.max(0, ...shown[i]))}/s`);
    showFaults(lane, data.faults.filter((f) => switches.get(f.switch)?.hop === i + 1), (ms) => Math.min(1, Math.max(0, (ms / 1000 - end + span) / span)));
  });
  attribute(latency.svg, 'viewBox', `0 0 ${span} ${height}`);
  for (const key of ['p50', 'p99']) latency.svg.querySelector(`.${key}`).setAttribute('d', line(data[key].slice(from), span));
  write(byId('timeline-summary'), summary(data));
  write(byId('faults-said'), data.faults.map((f) => `${stateOf(f)} from ${clock(f.from)}${f.to ? ` to ${clock(f.to)}` : ' on'}.`).join(' '));
}

const stateOf = (fault) => switches.get(fault.switch)?.state ?? fault.switch;

// bars returns bars as high as the root of the numbers. Otherwise the events that arrive together
// after a fault would flatten all the rest.
function bars(numbers, span, most) {
  const x = (i) => span - numbers.length + i;
  return numbers.map((n, i) => (n > 0 ? `M${x(i)} ${height}v${(-height * Math.sqrt(n / most)).toFixed(1)}h1V${height}z` : '')).join('');
}

// line leaves out seconds without a value. A single second is a short stroke, because a line of one
// point is not drawn.
function line(values, span) {
  const [low, high] = decades.map(Math.log10);
  const y = (ms) => (height * (1 - (Math.log10(Math.max(ms, decades[0])) - low) / (high - low))).toFixed(1);
  const x = (i) => span - values.length + i;
  return values.map((ms, i) => (ms === null ? '' : `${i > 0 && values[i - 1] !== null ? 'L' : 'M'}${x(i)} ${y(ms)}h1`)).join('');
}

// showFaults names the bands, the newest first, where one of the two rows has room to the right or
// left of the band's beginning.
function showFaults(lane, faults, place) {
  const newest = [...faults].reverse();
  while (lane.bands.children.length < newest.length) {
    lane.bands.append(make('span', 'band'));
    lane.names.append(make('span', 'band-name'));
  }
  while (lane.bands.children.length > newest.length) {
    lane.bands.lastChild.remove();
    lane.names.lastChild.remove();
  }
  newest.forEach((fault, i) => {
    const style = lane.bands.children[i].style;
    style.setProperty('--from', place(fault.from).toFixed(4));
    style.setProperty('--share', (place(fault.to || Infinity) - place(fault.from)).toFixed(4));
    write(lane.names.children[i], stateOf(fault));
  });
  const wide = lane.track.clientWidth;
  const rows = [[], []]; // the taken parts of each row, as [from, to]
  const widths = [...lane.names.children].map((name) => name.offsetWidth);
  newest.forEach((fault, i) => {
    const from = place(fault.from) * wide;
    const fits = (left, taken) => left >= 0 && left + widths[i] <= wide && taken.every(([l, r]) => left >= r + gap || left + widths[i] + gap <= l);
    const places = [from, from - widths[i]].flatMap((left) => rows.map((taken, row) => ({ left, taken, row })));
    const found = places.find(({ left, taken }) => fits(left, taken));
    const name = lane.names.children[i];
    name.classList.toggle('before', found?.left < from);
    name.style.setProperty('visibility', found ? 'visible' : 'hidden');
    if (!found) return;
    name.style.setProperty('left', `${found.left.toFixed(0)}px`);
    name.style.setProperty('--row', found.row);
    found.taken.push([found.left, found.left + widths[i]]);
  });
  lane.track.style.setProperty('--rows', rows.findLastIndex((taken) => taken.length > 0) + 1);
}

function summary(data) {
  const now = `Now: ${rate(data.passed[1].at(-1) ?? 0)} committed and ${rate(data.passed[5].at(-1) ?? 0)} on the bus a second.`;
  const at = data.p50.findLastIndex((v) => v !== null);
  if (at < 0) return `${now} No event has arrived in the last minutes.`;
  const ago = data.seconds.length - 1 - at;
  const slowest = Math.max(...data.p99.filter((v) => v !== null));
  return `${now} From commit to bus${ago < 3 ? '' : `, ${duration(ago * 1000)} ago`}: p50 ${duration(data.p50[at])}, p99 ${duration(data.p99[at])}, at most ${duration(slowest)}.`;
}
