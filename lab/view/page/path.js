// The six stations: how fast events pass, how many wait and before which station, and what is broken. The small path says the same while
// a part of the large one is out of sight.

import { attribute, byId, compact, count, duration, make, rate, write } from './write.js';

const most = 42; // dots of a pile
const rows = 3;

const stations = new Map(); // hop -> its elements
let switches = new Map(); // name -> its definition

export function start(meta) {
  switches = new Map(meta.switches.map((s) => [s.name, s]));
  for (const hop of meta.hops) {
    if (!stations.has(hop.hop)) stations.set(hop.hop, add(hop.hop));
    const { item, figures } = stations.get(hop.hop);
    write(item.querySelector('.stop'), hop.sign);
    write(item.querySelector('h3'), hop.name);
    write(item.querySelector('.what'), hop.what);
    write(figures.querySelector('th'), `${hop.sign} ${hop.name}`);
    write(figures.querySelector('.aws span'), hop.aws);
    write(stations.get(hop.hop).mini.firstChild, hop.sign);
  }
}

function add(hop) {
  const item = byId('station-template').content.cloneNode(true).firstElementChild;
  item.dataset.station = hop;
  const figures = byId('figures-template').content.cloneNode(true).firstElementChild;
  const mini = make('li');
  mini.append(make('span', 'stop'), make('b'));
  byId('stations').append(item);
  byId('figures').append(figures);
  byId('mini').append(mini);
  const values = {};
  for (const element of [...item.querySelectorAll('[data-value]'), ...figures.querySelectorAll('[data-value]')]) values[element.dataset.value] = element;
  return { item, figures, mini, values, badge: item.querySelector('.badge'), word: item.querySelector('[data-word=waiting]'), pile: item.querySelector('.pile') };
}

// The small path is there while a part of the large one is out of sight. The station that is down may be in that part.
const whole = 0.99; // a part of a px may be missing
new IntersectionObserver(([seen]) => {
  byId('mini').hidden = seen.intersectionRatio >= whole;
}, { threshold: whole }).observe(document.querySelector('.map'));

// queues returns how many events wait before each station, and before the subscriber (7).
export function queues(state) {
  const [http, , wal, stream, consumer, bus] = state.stations;
  const throttled = stream.faults.length > 0 && wal.faults.length === 0; // the relay has read them, and cannot send them
  return new Map([[2, http.inFlight], [3, throttled ? 0 : wal.backlog], [4, throttled ? wal.backlog : 0], [5, stream.backlog], [6, consumer.inFlight], [7, bus.backlog]]);
}

// closed returns the hops that nothing passes, either because a fault lets nothing through or
// although events wait.
export function closed(state) {
  const waits = queues(state);
  return new Set(state.stations.filter((s) => s.rate === 0 && (waits.get(s.hop) > 0 || s.faults.some((name) => switches.get(name)?.stops))).map((s) => s.hop));
}

export function show(state) {
  const waits = queues(state);
  const shut = closed(state);
  let dry = false; // nothing moves along the line
  for (const s of state.stations) {
    const station = stations.get(s.hop);
    if (!station) continue;
    const { item, mini, values, badge } = station;
    const n = waits.get(s.hop) ?? 0;
    item.classList.toggle('dry', dry);
    dry = s.rate === 0 && (dry || shut.has(s.hop));
    write(values.rate, rate(s.rate));
    write(values.inFlight, count(s.inFlight));
    write(values.oldestMs, duration(Math.round(s.oldestMs)));
    write(values.restarts, count(s.restarts));
    write(values.total, count(s.total));
    showWaiting(station, n);
    const broken = s.faults.length > 0;
    item.classList.toggle('faulty', broken);
    item.classList.toggle('held', n > 0 && (broken || shut.has(s.hop)));
    mini.className = broken ? 'faulty' : '';
    const parked = s.hop === 5 && state.failureQueue > 0 ? `${count(state.failureQueue)} parked` : '';
    const text = s.faults.map((name) => switches.get(name)?.state ?? name).join(' · ') || s.note || parked;
    item.classList.toggle('noted', text !== '');
    write(badge, text);
  }
  document.querySelector('.map').classList.toggle('dry', dry);
  byId('problem').hidden = !state.problem;
  write(byId('problem'), state.problem);
}

function showWaiting({ item, mini, values, word, pile }, n) {
  const text = compact(n);
  write(values.waiting, text);
  write(mini.lastChild, n > 0 ? text : '');
  write(word, n === 1 ? 'waits' : 'waiting');
  item.classList.toggle('waits-none', n === 0);
  values.waiting.style.setProperty('--chars', text.length);
  attribute(values.waiting, 'title', text === count(n) ? null : count(n));
  // Up to twelve events have a dot each. Then there are fewer dots, because it is enough that the
  // pile grows.
  const dots = n <= 12 ? n : Math.min(most, Math.round(12 + 10 * Math.log10(n / 12)));
  pile.style.setProperty('--across', Math.ceil(dots / rows));
  pile.style.setProperty('--down', Math.min(dots, rows));
}

// center returns the middle of an element.
function center(element, origin = { left: 0, top: 0 }) {
  const r = element.getBoundingClientRect();
  return [r.left + r.width / 2 - origin.left, r.top + r.height / 2 - origin.top];
}

// fronts returns how far before each station its pile begins, in px from the middle of its stop.
export function fronts() {
  return new Map([...stations].map(([hop, { item, pile }]) => {
    const [x, y] = center(item.querySelector('.stop'));
    const { left, top } = pile.getBoundingClientRect();
    return [hop, Math.max(x - left, y - top)];
  }));
}

// anchors returns where the line passes the client, the stations and the subscriber, relative to
// the element.
export function anchors(relativeTo) {
  const origin = relativeTo.getBoundingClientRect();
  const stops = [...stations.values()].map((s) => center(s.item.querySelector('.stop'), origin));
  if (stops.length === 0) return [];
  const [first, last] = [stops[0], stops[stops.length - 1]];
  const across = stops.length > 1 && Math.abs(stops[1][0] - first[0]) > Math.abs(stops[1][1] - first[1]);
  const end = (from, to) => (across ? [to, from[1]] : [from[0], to]);
  return [end(first, 3), ...stops, end(last, (across ? origin.width : origin.height) - 3)];
}
