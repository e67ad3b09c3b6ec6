// The latest deed on the path, whoever did it, and its outcome.

import { plural } from './write.js';

let definitions = new Map(); // switch -> its definition
let before = null; // switch -> its state in the frame before
let totals = null; // in the frame before
let deed = null; // {name, on, at, totals before it, waited}; waited is the most events that have waited since

export function start(meta) {
  definitions = new Map(meta.switches.map((s) => [s.name, s]));
}

export function show(state) {
  const now = new Map(state.switches.map((s) => [s.name, s]));
  for (const [name, s] of now) {
    const was = before?.get(name);
    const once = definitions.get(name)?.once;
    const done = was && (once ? s.struck > was.struck : s.on !== was.on);
    // The frame that shows a deed may show its outcome, too, so the totals are those of the frame
    // before. Faults that an experiment switches are left to the tour. Events that waited may have
    // arrived before the frame that says that the fault is over.
    const waited = !s.on && deed?.name === name ? deed.waited : (totals?.onTheWay ?? 0);
    if (done && !state.tour.running) deed = { name, once, on: s.on, at: performance.now(), totals, waited };
  }
  before = now;
  totals = state.totals;
  if (deed) deed.waited = Math.max(deed.waited, state.totals.onTheWay);
}

// last returns when the latest deed was done, in ms, and what the banner says of it. It returns
// null if there was none.
export function last(state) {
  if (!deed) return null;
  const definition = definitions.get(deed.name);
  const t = state.totals;
  const head = deed.on || deed.once ? definition.state : `${definition.state}: over`;
  return { at: deed.at, on: deed.on, head, text: outcome(t, state) };
}

const waiting = (t) => plural(t.onTheWay, 'event waits', 'events wait');

// whileOn returns what the banner says while a fault is in force, whoever has switched it on.
export const whileOn = (t) => (t.onTheWay > 0 ? `${waiting(t)}. None is lost.` : 'Nothing waits yet. Create cars, and see where their events wait.');

function outcome(t, state) {
  const waits = waiting(t);
  if (deed.name === 'poison') {
    const parked = t.parked > deed.totals.parked;
    return parked ? 'It is in the failure queue, and what came after it went on.' : 'The consumer has not parked it yet, and nothing passes it.';
  }
  if (deed.name === 'drop-slot') {
    const again = t.duplicates - deed.totals.duplicates;
    if (again === 0) return 'The relay makes a new slot and sends every row of outbox again.';
    return `The relay has made a new slot. ${plural(again, 'event has', 'events have')} come twice, and ${plural(t.lost, 'is', 'are')} lost.`;
  }
  if (deed.on) return whileOn(t);
  if (!state.reading.current || t.onTheWay > 0) return `${waits}, and they arrive now.`;
  const came = deed.waited > 0 ? `All ${plural(deed.waited, 'event that waited has', 'events that waited have')} arrived.` : 'Nothing had waited.';
  return `${came} ${plural(t.lost, 'event is', 'events are')} lost.`;
}
