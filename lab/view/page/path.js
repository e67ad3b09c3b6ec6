// The six stations, what lies between them (slot, shards, failure queue, subscriber), and the faults that are on.

import { byId, bytes, count, duration, make, rate, write } from './write.js';

const slow = 2000; // ms: an event that waits longer is worth a colour
const shownShards = 4;

const stations = new Map(); // hop -> its elements
let labels = new Map(); // switch -> label

export function start(meta) {
  labels = new Map(meta.switches.map((s) => [s.name, s.label]));
  const list = byId('stations');
  for (const hop of meta.hops) {
    let station = stations.get(hop.hop);
    if (!station) {
      const item = byId('station-template').content.cloneNode(true).firstElementChild;
      item.dataset.station = hop.hop;
      const values = {};
      for (const element of item.querySelectorAll('[data-value]')) values[element.dataset.value] = element;
      station = { item, values, badge: item.querySelector('.badge'), note: item.querySelector('.note') };
      stations.set(hop.hop, station);
      list.append(item);
    }
    write(station.item.querySelector('.stop'), hop.sign);
    write(station.item.querySelector('h3'), `${hop.sign} ${hop.name}`);
    write(station.item.querySelector('.what'), hop.what);
    write(station.item.querySelector('.aws'), `AWS: ${hop.aws}`);
  }
}

export function show(state) {
  for (const s of state.stations) {
    const station = stations.get(s.hop);
    if (!station) continue;
    const { item, values, badge, note } = station;
    write(values.rate, rate(s.rate));
    write(values.inFlight, count(s.inFlight));
    write(values.backlog, count(s.backlog));
    write(values.oldestMs, duration(Math.round(s.oldestMs)));
    write(values.restarts, count(s.restarts));
    write(values.total, count(s.total));
    const held = s.oldestMs > slow;
    values.backlog.parentElement.classList.toggle('much', held && s.backlog > 0);
    values.oldestMs.parentElement.classList.toggle('much', held);
    write(note, s.note || '\u00a0');
    const faults = s.faults ?? [];
    item.classList.toggle('faulty', faults.length > 0);
    write(badge, faults.map((name) => labels.get(name) ?? name).join(' · '));
  }
  showSlot(state.slot);
  showShards(state.shards ?? []);
  showEnds(state);
  write(byId('problem'), state.problem || '\u00a0');
}

function showSlot(slot) {
  const place = document.querySelector('.place.slot');
  const wrong = !slot || !slot.exists || !slot.active;
  place.classList.toggle('wrong', wrong);
  if (!slot) {
    for (const id of ['slot-confirmed', 'slot-current', 'slot-lag', 'slot-retained']) write(byId(id), '–');
    write(byId('slot-name'), 'the database cannot be asked');
    return;
  }
  const status = slot.exists ? (slot.active ? 'active' : 'nobody reads it') : 'does not exist';
  write(byId('slot-name'), `${slot.name}, ${status}`);
  write(byId('slot-confirmed'), slot.confirmedLsn || '–');
  write(byId('slot-current'), slot.currentLsn || '–');
  write(byId('slot-lag'), bytes(slot.lagBytes));
  write(byId('slot-retained'), `${bytes(slot.retainedBytes)}${slot.walStatus ? `, ${slot.walStatus}` : ''}`);
}

function showShards(shards) {
  const list = byId('shards');
  const shown = shards.length > shownShards ? shownShards - 1 : shards.length;
  const lines = shards.slice(0, shown).map((s) => {
    const id = s.id.replace(/^shardId-0*(?=\d)/, 'shard ');
    const behind = s.waiting > 0 ? `${count(s.waiting)} waiting, ${duration(s.behindMs)} behind` : 'at its end';
    return [id, s.iterator.replace(/\d{20,}/, (n) => `…${n.slice(-12)}`), behind];
  });
  if (shards.length > shown) lines.push([`${shards.length - shown} more`, '', '']);
  while (list.children.length < lines.length) {
    const item = make('li');
    item.append(make('b'), make('span', 'mono'), make('span', 'behind'));
    list.append(item);
  }
  while (list.children.length > lines.length) list.lastElementChild.remove();
  lines.forEach((line, i) => line.forEach((text, j) => write(list.children[i].children[j], text)));
}

function showEnds(state) {
  const { totals } = state;
  write(byId('queue'), count(state.failureQueue));
  document.querySelector('.place.queue').classList.toggle('wrong', state.failureQueue > 0);
  write(byId('counted'), count(totals.counted));
  write(byId('suppressed'), count(totals.suppressed));
  write(byId('subscriber-queue'), count(state.subscriberQueue));
  write(byId('subscriber-failures'), count(state.subscriberFailures));
  write(byId('out-of-order'), count(totals.outOfOrder));
}

// anchors are where the line passes the client, the stations and the subscriber, relative to the element.
export function anchors(relativeTo) {
  const origin = relativeTo.getBoundingClientRect();
  const center = (element) => {
    const r = element.getBoundingClientRect();
    return [r.left + r.width / 2 - origin.left, r.top + r.height / 2 - origin.top];
  };
  const stops = [...stations.values()].map((s) => center(s.item.querySelector('.stop')));
  if (stops.length === 0) return [];
  const [first, last] = [stops[0], stops[stops.length - 1]];
  const across = stops.length > 1 && Math.abs(stops[1][0] - first[0]) > Math.abs(stops[1][1] - first[1]);
  const end = (from, to) => (across ? [to, from[1]] : [from[0], to]);
  return [end(first, 3), ...stops, end(last, (across ? origin.width : origin.height) - 3)];
}
