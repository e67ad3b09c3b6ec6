// The page takes what the server sends, and each module shows its part. path, places and dots show
// the stations. promise, reading, next, deed, create, break, tour, timeline, events and record show
// what they are named after. live is the connection, address the URL, write has text and numbers.

import { byId, clock, write } from './write.js';
import { connect, getJSON } from './live.js';
import * as address from './address.js';
import './size.js';
import * as path from './path.js';
import * as places from './places.js';
import * as dots from './dots.js';
import * as promise from './promise.js';
import * as reading from './reading.js';
import * as deed from './deed.js';
import * as next from './next.js';
import * as create from './create.js';
import * as faults from './break.js';
import * as tour from './tour.js';
import * as timeline from './timeline.js';
import * as events from './events.js';
import * as record from './record.js';

// The order matters, because next asks the others.
const parts = [path, places, promise, reading, create, faults, tour, events, record, timeline, dots, deed, next];
const once = new Set([dots, record]); // do not depend on the server's version
let ready = false;
let latest = null; // the state that came last

function show(state) {
  if (!ready) return;
  for (const part of parts) part.show?.(state);
  reveal();
}

const reveal = () => document.querySelector('main').classList.remove('waiting');

document.addEventListener('visibilitychange', () => {
  if (!document.hidden && latest) show(latest);
});

function openSection() {
  const section = address.get('section');
  markSection();
  if (section && !address.get('event')) goTo(section);
}

function goTo(section) {
  const element = [...document.querySelectorAll('main section[id]')].find((s) => s.id === section);
  element?.scrollIntoView({ block: 'start' });
  element?.focus({ preventScroll: true });
}

function markSection() {
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === `?section=${address.get('section')}`) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
  }
}

address.onChange(markSection);
document.addEventListener('click', (event) => {
  const changes = address.follow(event);
  if (changes?.section) goTo(changes.section);
});

connect({
  async again() {
    // Also after a restart, because another version may have other switches.
    const { ok, body } = await getJSON('/meta').catch(() => ({ ok: false }));
    if (!ok) return setTimeout(() => this.again(), 1000);
    write(byId('api-url'), body.apiUrl);
    for (const part of parts.filter((p) => !ready || !once.has(p))) part.start?.(body);
    const first = !ready;
    ready = true;
    if (latest) show(latest);
    if (first) openSection();
  },
  state(state) {
    latest = state;
    if (!document.hidden) show(state); // nobody sees a hidden page
  },
  series: timeline.take,
  connection(connected, since) {
    document.body.classList.toggle('stale', !connected);
    const text = connected ? 'connected' : since ? `disconnected since ${clock(since)}, trying again` : 'disconnected, trying again';
    byId('connection').classList.toggle('gone', !connected);
    write(byId('connection'), text);
    if (connected) return;
    next.disconnected(since);
    reveal();
  },
});
