// The latest events, newest first. While many arrive, the table stands still under the pointer and
// the focus. Otherwise nobody could click on the row that they see.

import { attribute, byId, clock, duration, plural, signs, write } from './write.js';
import * as address from './address.js';

const most = 40;
const many = 5; // new events a second from which the table stands still under the pointer
const patience = 4000; // ms that the table stands still after the last movement

const body = byId('event-rows');
const rows = []; // from the top
let names = [];
let arrivals = []; // times of new events of the last second
let known = new Set();
let touched = -patience;
let missed = 0;

export function start(meta) {
  names = meta.hops.map((h) => h.name);
}

// A click on a row opens its event, and so does Enter.
body.addEventListener('click', (event) => {
  if (event.defaultPrevented || event.target.closest('a')) return; // a link is followed
  const row = event.target.closest('tr');
  if (row && !String(getSelection())) address.set({ event: row.dataset.event });
});
body.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.tagName === 'TR') address.set({ event: event.target.dataset.event });
});
const touch = () => {
  touched = performance.now();
};
for (const type of ['pointermove', 'pointerdown', 'keydown', 'focusin']) body.addEventListener(type, touch);
body.addEventListener('pointerleave', () => {
  touched = -patience;
});

export function show(state) {
  const events = state.events.slice(0, most);
  const now = performance.now();
  const fresh = events.filter((e) => !known.has(e.id)).length;
  known = new Set(events.map((e) => e.id));
  arrivals = arrivals.filter(([at]) => now - at < 1000);
  if (fresh > 0) arrivals.push([now, fresh]);
  const perSecond = arrivals.reduce((sum, [, n]) => sum + n, 0);
  const held = rows.length > 0 && perSecond >= many && now - touched < patience;
  missed = held ? missed + fresh : 0;
  write(byId('held'), held ? `Stands still while you point at it: ${plural(missed, 'newer event', 'newer events')}` : '\u00a0');
  const shown = new Map(rows.map((row) => [row.dataset.event, row]));
  if (!held) arrange(events);
  else for (const event of events) if (shown.has(event.id)) fill(shown.get(event.id), event);
  byId('no-events').hidden = rows.length > 0;
}

// arrange writes the event of each place into the row of that place. Rows do not move, because
// hundreds of moves a second are work for the browser that nobody sees. The focus moves with its
// event.
function arrange(events) {
  const focused = document.activeElement?.closest('#event-rows tr');
  const id = focused?.dataset.event;
  while (rows.length < events.length) {
    rows.push(byId('row-template').content.cloneNode(true).firstElementChild);
    body.append(rows.at(-1));
  }
  while (rows.length > events.length) rows.pop().remove();
  events.forEach((event, i) => fill(rows[i], event));
  if (id && focused.dataset.event !== id) rowOf(id)?.querySelector('a').focus({ preventScroll: true });
}

const rowOf = (id) => rows.find((row) => row.dataset.event === id);

function fill(row, event) {
  const link = row.querySelector('a');
  if (row.dataset.event !== event.id) {
    row.dataset.event = event.id;
    link.setAttribute('href', `?event=${encodeURIComponent(event.id)}`);
    attribute(row, 'aria-current', event.id === address.get('event') ? 'true' : null);
  }
  write(link, event.title || event.aggregateId);
  write(row.querySelector('.type'), `${event.type} v${event.version}`);
  write(row.querySelector('.when'), clock(event.committedAt));
  const counted = event.ms?.subscriber !== undefined && event.ms.subscriber !== null;
  const place = event.parked ? 'failure queue' : event.held ? `${signs[6]} held` : counted ? `${signs[6]} counted` : `${signs[event.hop]} ${names[event.hop - 1] ?? ''}`;
  write(row.querySelector('.place-name'), place);
  const done = String(counted ? 6 : event.hop - 1);
  const bar = row.querySelector('.hops').style;
  if (bar.getPropertyValue('--hop') !== done) bar.setProperty('--hop', done);
  write(row.querySelector('.ms'), event.hop >= 6 ? duration(event.ms?.bus) : '');
  const again = [];
  if (event.copies > 1) again.push(plural(event.copies, 'copy', 'copies'));
  if (event.tries > 1) again.push(plural(event.tries, 'try', 'tries'));
  if (event.error) again.push(event.error);
  write(row.querySelector('.copies'), again.join(', '));
}

address.onChange(() => {
  for (const row of rows) attribute(row, 'aria-current', row.dataset.event === address.get('event') ? 'true' : null);
});

// focusOn gives the focus back to an event's row, if the row is still there.
export function focusOn(id) {
  const link = rowOf(id)?.querySelector('a');
  (link ?? byId('events')).focus({ preventScroll: !link });
}

