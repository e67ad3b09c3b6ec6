// One event: its records of all hops side by side, with times and what was done again. It is asked for anew until its way has ended.

import { byId, clock, duration, make, plural, signs, write } from './write.js';
import { getJSON } from './live.js';
import * as address from './address.js';
import { focusOn } from './events.js';

const panel = byId('event');
const list = byId('records');
const again = 2000; // ms between questions
const questions = 150;

let open = '';
let asked = 0; // the number of the last question: later answers to earlier ones are not shown
let timer = 0;
let left = 0;
let shown = ''; // what the event's row said when it was asked last

export function start() {
  byId('event-close').addEventListener('click', close);
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && open) close();
  });
  address.onChange(follow);
  follow(true);
}

function close() {
  address.set({ event: '' });
}

function follow() {
  const id = address.get('event');
  if (id === open) return;
  const before = open;
  open = id;
  shown = '';
  asked++;
  clearTimeout(timer);
  panel.hidden = !id;
  if (!id) {
    list.replaceChildren();
    focusOn(before);
    return;
  }
  panel.dataset.id = id;
  write(byId('event-title'), 'Event');
  write(byId('event-note'), `Asking for ${id}`);
  list.replaceChildren();
  left = questions;
  ask();
  panel.scrollIntoView({ block: 'start' });
  panel.focus({ preventScroll: true });
}

async function ask() {
  clearTimeout(timer);
  const [id, number] = [open, ++asked];
  left--;
  let answer = null;
  try {
    answer = await getJSON(`/events/${encodeURIComponent(id)}`);
  } catch {
    // nobody answers: #connection says so
  }
  if (number !== asked) return;
  const { ok, status, body } = answer ?? { ok: false, status: 0 };
  if (ok) render(id, body);
  else if (status) write(byId('event-note'), `${id}: ${body?.error ?? status}`);
  const ended = ok ? body.records.some((r) => r.hop === 7 && r.body !== null) : status === 404 || status === 400;
  if (!ended && left > 0) timer = setTimeout(ask, again);
}

// show asks again when the event's row says something new.
export function show(state) {
  if (!open) return;
  const event = state.events.find((e) => e.id === open);
  if (!event) return;
  const says = [event.hop, event.copies, event.tries, event.ms?.subscriber].join();
  if (shown && says !== shown) {
    clearTimeout(timer);
    timer = setTimeout(ask, 150);
  }
  shown = says;
}

function render(id, event) {
  write(byId('event-note'), `${id} · ${summary(event)}`);
  while (list.children.length > event.records.length) list.lastElementChild.remove();
  event.records.forEach((record, i) => {
    let item = list.children[i];
    if (!item) {
      item = byId('record-template').content.cloneNode(true).firstElementChild;
      list.append(item);
    }
    item.dataset.hop = record.hop;
    const known = record.body !== null && record.body !== undefined;
    item.classList.toggle('unknown', !known && !record.at);
    write(item.querySelector('h3'), `${record.hop <= 6 ? `${signs[record.hop]} ` : ''}${record.title}`);
    write(item.querySelector('.at'), record.at ? `${clock(record.at, true)} · +${duration(record.afterMs)}` : '\u00a0');
    const facts = (record.facts ?? []).flatMap(([name, value]) => {
      const line = make('div', name === 'why' ? 'reason' : '');
      line.append(make('dt', '', name), make('dd', '', value));
      return [line];
    });
    item.querySelector('dl').replaceChildren(...facts);
    const pre = item.querySelector('pre');
    pre.hidden = !known;
    if (known) write(pre, typeof record.body === 'string' ? record.body : JSON.stringify(record.body, null, 2));
  });
}

function summary(event) {
  const times = (n) => (n === 1 ? 'once' : plural(n, 'time', 'times'));
  const copies = event.copies > 0 ? `on the bus ${times(event.copies)}` : 'not on the bus yet';
  return event.tries > 0 ? `${copies}, tried ${times(event.tries)}` : copies;
}
