// One event as a waterfall of its hops, and the record of the chosen hop. The record has what
// `outboxctl where` says (GET /events/{id}/where), and what only the parts of the path know that
// handled the event (GET /events/{id}). The second is asked for again until the event has arrived.
// The first is asked for when the event is opened, and when it has arrived.

import { byId, clock, make, plural, write } from './write.js';
import { getJSON } from './live.js';
import * as address from './address.js';
import { focusOn } from './events.js';
import * as dots from './dots.js';
import * as waterfall from './waterfall.js';
import * as changes from './changes.js';

const panel = byId('event');
const list = byId('records');
const again = 2000; // ms between questions
const questions = 150;

let opened = null; // the open event, with its id, the answers, and the requests under way

export function start() {
  byId('event-close').addEventListener('click', close);
  byId('event-follow').addEventListener('click', () => {
    dots.follow(opened.id, opened.title || opened.id);
    byId('path').scrollIntoView({ block: 'start' });
  });
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && opened) close();
  });
  address.onChange(follow);
  follow();
}

function close() {
  address.set({ event: '' });
}

function follow() {
  const id = address.get('event');
  const before = opened?.id ?? '';
  if (id === before) return;
  clearTimeout(opened?.timer);
  opened = id ? { id, seen: null, where: null, problem: '', told: null, title: '', chosen: null, left: questions, timer: 0, shown: '' } : null;
  panel.hidden = !id;
  list.replaceChildren();
  waterfall.clear();
  if (!id) {
    focusOn(before);
    return;
  }
  panel.dataset.id = id;
  write(byId('event-title'), 'Event');
  write(byId('event-note'), `Asking for ${id}`);
  ask(opened);
  panel.scrollIntoView({ block: 'start' });
  panel.focus({ preventScroll: true });
}

// get returns null if the server does not answer, which #connection shows.
const get = (event, what) => getJSON(`/events/${encodeURIComponent(event.id)}${what}`).catch(() => null);

async function ask(event) {
  clearTimeout(event.timer);
  event.left--;
  const answer = await get(event, '');
  if (event !== opened) return;
  if (answer && !answer.ok) {
    write(byId('event-note'), `${event.id}: ${answer.body?.error ?? answer.status}`);
    if (answer.status === 404) return;
  }
  if (answer?.ok) {
    event.seen = answer.body;
    askWhere(event);
    render(event);
  }
  const ended = event.seen?.subscriber && event.where;
  clearTimeout(event.timer);
  if (!ended && event.left > 0) event.timer = setTimeout(() => ask(event), again);
}

// askWhere reads the stream and the bus's log, so it asks only once for the same end of the event, which a subscriber that holds it moves.
async function askWhere(event) {
  const end = `${event.seen.copies} ${event.seen.parked} ${event.seen.subscriber?.countedAt ?? ''}`;
  if (event.told === end) return;
  event.told = end;
  const answer = await get(event, '/where');
  if (event !== opened || event.told !== end) return;
  if (answer?.ok) event.where = answer.body;
  else if (answer?.status !== 404) event.told = null; // the next question asks once more
  event.problem = answer?.body?.error ?? '';
  render(event);
}

// show asks again when the event's row says something new.
export function show(state) {
  const row = state.events.find((e) => e.id === opened?.id);
  if (!row) return;
  const event = opened;
  event.title = row.title;
  write(byId('event-title'), `Event of ${row.title}`);
  const says = [row.hop, row.copies, row.tries, row.parked, row.held, row.ms?.subscriber].join();
  if (event.shown && says !== event.shown) {
    clearTimeout(event.timer);
    event.timer = setTimeout(() => ask(event), 150);
  }
  event.shown = says;
}

// columnOf returns table outbox's name of a field of outboxctl's.
const columnOf = (name) => (name === 'eventId' ? 'id' : name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));

// recordsOf returns for each hop its title, its time, the objects with its data, and what it means
// if they are absent.
function recordsOf(event) {
  const { seen } = event;
  const where = event.where ?? { stream: [], parked: [], bus: [], held: [] };
  const [onStream] = where.stream;
  const [invocation] = seen.consumer?.invocations ?? [];
  const pending = event.where ? null : event.problem || 'Asking outboxctl where';
  const unseen = where.queueNotReadToItsEnd && { queueNotReadToItsEnd: true };
  return [
    ['HTTP request', seen.request?.at, [seen.request],
      seen.why ?? 'No request to the API of this run has written it: it was written beside the API, or before.'],
    ['Row of outbox', where.row?.createdAt, [where.row && { eventId: where.eventId, ...where.row }, { traceparent: seen.traceparent, eventData: seen.eventData }],
      pending ?? 'No row: never committed, rolled back, or purged.'],
    ['Position in the WAL', where.commit?.at, [where.commit, where.slot, { readAt: seen.readAt }],
      pending ?? 'No commit is known: a load of the table has none.'],
    ['Record on the stream', onStream?.arrivedAt, [...where.stream, onStream ? null : where.read, { record: seen.record }], pending],
    ["Consumer's batch", invocation?.at ?? where.parked[0]?.at, [...where.parked, unseen, seen.consumer],
      seen.why ?? 'The consumer has not got it yet.'],
    ['EventBridge entry', seen.entry?.acceptedAt ?? where.bus[0]?.arrivedAt, [...where.bus, seen.entry],
      pending ?? 'It is not on the bus.'],
    ["Subscriber's answer", seen.subscriber?.countedAt || where.held[0]?.heldSince, [...where.held, seen.subscriber], seen.why ?? 'The subscriber has not got it.'],
  ];
}

function render(event) {
  const says = event.where ? `${event.where.lastHop} ${event.where.says}` : event.problem || 'Asking outboxctl where';
  const tries = event.seen.tries > 0 ? `, tried ${plural(event.seen.tries, 'time', 'times')}` : '';
  write(byId('event-note'), `${event.id} · ${says}${tries}`);
  const records = recordsOf(event);
  waterfall.draw(records.map(([title, at]) => [title, at ? Date.parse(at) : null]));
  const marks = changes.compare(records.map(([, , parts], i) => [parts, i === 1 ? columnOf : undefined]));
  records.forEach(([title, at, parts, absent], i) => {
    if (!list.children[i]) list.append(byId('record-template').content.cloneNode(true).firstElementChild);
    const item = list.children[i];
    const [facts, body] = split(parts);
    const known = facts.length > 0 || body !== null;
    if (!known) facts.push(['why', absent]);
    item.dataset.hop = i + 1;
    item.id = `record-${i + 1}`;
    item.classList.toggle('unknown', !known);
    write(item.querySelector('h3'), waterfall.named(title, i));
    write(item.querySelector('.at'), at ? clock(at, true) : '');
    item.querySelector('dl').replaceChildren(...facts.map(([name, value]) => {
      const line = marked(make('div'), known ? marks[i](name, value) : '', make('dt', '', name), make('dd', '', String(value)));
      line.classList.toggle('reason', !known);
      return line;
    }));
    showJSON(item.querySelector('pre'), body, marks[i]);
    item.querySelector('.legend-of-marks').hidden = !item.querySelector('.added, .renamed');
  });
  waterfall.choose(event.chosen ?? furthest(records));
}

// marked marks an element as a field that its hop has added or renamed.
function marked(element, mark, ...content) {
  if (mark === '+') element.className = 'added';
  else if (mark) element.className = 'renamed';
  if (element.className === 'renamed') content.at(-1).append(make('span', 'earlier', ` ← ${mark}`));
  element.append(...content);
  return element;
}

function showJSON(pre, body, markOf) {
  pre.hidden = body === null;
  const lines = body === null ? [] : changes.lines(body, markOf);
  const key = JSON.stringify(lines);
  if (pre.shown === key) return; // writing it again would scroll away from the reader's place
  pre.shown = key;
  pre.replaceChildren(...lines.map(([text, mark]) => marked(make('span'), mark, make('span', 'json', text))));
}

// furthest returns the last hop that the event has passed.
const furthest = (records) => Math.max(0, records.findLastIndex(([, at]) => at));

waterfall.onChoose((i) => {
  opened.chosen = i;
});

// split splits the objects' members. It returns those with a single value as [name, value], and the
// others as one object or null.
function split(parts) {
  const members = parts.flatMap((part) => Object.entries(part || {})).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const isNested = ([, value]) => typeof value === 'object';
  const nested = members.filter(isNested);
  return [members.filter((m) => !isNested(m)), nested.length > 0 ? Object.fromEntries(nested) : null];
}
