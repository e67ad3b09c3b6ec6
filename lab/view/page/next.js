// The next step, which is the one thing that the page suggests, from the first car to the last
// experiment.

import { byId, clock, duration, write } from './write.js';
import * as create from './create.js';
import * as faults from './break.js';
import * as tour from './tour.js';
import * as deed from './deed.js';

const head = byId('next-head');
const text = byId('next-text');
const now = byId('next-now'); // not announced to screen readers, because it changes often
const buttons = [byId('next-do'), byId('next-also')];
const actions = [null, null];
let experiments = [];
let sawArrival = null; // ms from commit to bus of the first event that arrived while the page was open
let known = null;

buttons.forEach((button, i) => button.addEventListener('click', () => actions[i]?.()));

export function start(meta) {
  experiments = meta.tour;
}

export function show(state) {
  noteArrivals(state.events);
  suggest(advice(state));
  write(now, state.tour.running ? state.tour.said : '');
}

// disconnected is called when the server is gone. since is when it last sent something, or 0.
export function disconnected(since) {
  const asOf = since ? `What is grey is as of ${clock(since)}. ` : '';
  suggest(['Disconnected: make dev does not answer', `${asOf}Start make dev again: this page goes on by itself.`]);
  write(now, '');
}

function suggest([title, said, first, second]) {
  write(head, title);
  write(text, said);
  [first, second].forEach((button, i) => {
    buttons[i].hidden = !button;
    actions[i] = button?.[1] ?? null;
    if (button) write(buttons[i], button[0]);
  });
}

function noteArrivals(events) {
  known ??= new Set(events.map((e) => e.id));
  if (sawArrival !== null) return;
  const event = events.find((e) => e.hop >= 6 && !known.has(e.id));
  if (event) sawArrival = event.ms?.bus ?? 0;
}

const carButton = (label) => [label, () => create.create()];
const startButton = (n, label) => [label, () => tour.begin(n)];

function advice(state) {
  const { running, step, results = [] } = state.tour;
  if (running) {
    const steps = experiments.find((e) => e.n === running)?.steps ?? [];
    const at = step > 0 ? `, step ${step} of ${steps.length}` : '';
    return [`Experiment ${running}${at}: ${tour.titleOf(running)}`, steps[step - 1] ?? '', state.tour.waiting && ['Next step', () => tour.goOn()], ['Stop', () => tour.stop()]];
  }
  const last = lastResult(results);
  const done = deed.last(state);
  const open = experiments.find((e) => !results.some((r) => r.n === e.n && r.passed));
  const on = faults.statesOn();
  if (on.length > 0) {
    const [head, text] = done ? [done.on ? on.join(', ') : `${done.head}. Still: ${on.join(', ')}`, done.text] : [on.join(', '), deed.whileOn(state.totals)];
    return [head, text, ['End all faults', () => faults.allOff()], carButton('Create a car')];
  }
  if (done && !(done.at < resultAt)) return [done.head, done.text, carButton('Create a car'), open && startButton(open.n, `Experiment ${open.n}`)];
  if (last && !last.passed) return [`Experiment ${last.n} did not pass`, last.text, startButton(last.n, `Experiment ${last.n} again`)];
  if (last && open) return [`Experiment ${last.n} passed. Next: ${open.title}`, last.text, startButton(open.n, `Start experiment ${open.n}`)];
  if (last) return ['All five passed', 'Now break it your own way: set a load, switch faults on, several at once, and off again. 0 lost is what has to stay.', carButton('Create a car')];
  if (sawArrival !== null && open) {
    return [`It arrived after ${duration(sawArrival)}. Experiment ${open.n}: ${open.title}`, open.intro, startButton(open.n, `Start experiment ${open.n}`)];
  }
  if (create.created()) return ['Created. Watch its event go from ① to ⑥', 'Most of the time is the wait for the next poll of the stream, at ⑤.', carButton('Another car')];
  return ['Start here: create a car', 'Its row and its event are one commit. Watch the event travel from ① to ⑥.', carButton('Create a car')];
}

let seen = new Map();
let latest = null;
let resultAt = -1; // when it came

// lastResult returns the latest result. The server keeps the results in the order of the
// experiments' numbers.
function lastResult(results) {
  for (const r of results) {
    if (seen.get(r.n) !== r.text) {
      latest = r.n;
      resultAt = performance.now();
    }
    seen.set(r.n, r.text);
  }
  return results.find((r) => r.n === latest) ?? null;
}
