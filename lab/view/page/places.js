// The places between the stations, which are the slot, the shards, the failure queue and the
// subscriber. They are part of the details.

import { byId, bytes, clock, count, duration, make, write } from './write.js';

const shownShards = 4;

export function show(state) {
  showSlot(state.slot);
  showShards(state.shards ?? []);
  const { totals } = state;
  write(byId('queue'), count(state.failureQueue));
  document.querySelector('.place.queue').classList.toggle('wrong', state.failureQueue > 0);
  write(byId('counted'), count(totals.counted));
  write(byId('suppressed'), count(totals.suppressed));
  write(byId('subscriber-queue'), count(state.subscriberQueue));
  write(byId('held'), state.held.events > 0 ? `${count(state.held.events)}, since ${clock(state.held.since)}` : '0');
  write(byId('subscriber-failures'), count(state.subscriberFailures));
  write(byId('out-of-order'), count(totals.outOfOrder));
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
