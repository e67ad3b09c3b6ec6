// The form for a car, with the API's own error messages, and the slider for the load.

import { byId, duration, make, plural, signs, write } from './write.js';
import { send } from './live.js';
import * as dots from './dots.js';

const form = byId('car-form');
const names = [...form.elements].map((field) => field.name).filter(Boolean);
const answer = byId('car-answer');
const slider = byId('load');

let samples = [{}];
let sample = 0;
let followed = null; // {carId, status, message, event, arrived} of the car that was created last
let sending = false;
let mine = 0; // when the slider was moved here
let wanted = null;

export function start(meta) {
  slider.max = meta.maxLoad;
  samples = meta.samples;
  fill();
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  create();
});
for (const name of names) form.elements[name].addEventListener('focus', (event) => event.target.select());

// create sends the form's car. The page checks nothing, because the API does.
export async function create() {
  if (sending) return;
  sending = true;
  form.setAttribute('aria-busy', 'true');
  const { ok, status, body } = await send('POST', '/cars', car());
  sending = false;
  form.removeAttribute('aria-busy');
  const fields = body?.fields ?? {};
  for (const name of names) {
    write(byId(`car-${name}-why`), fields[name] ?? '');
    if (fields[name]) form.elements[name].setAttribute('aria-invalid', 'true');
    else form.elements[name].removeAttribute('aria-invalid');
  }
  followed = ok && body?.car ? { carId: body.car.id, status, message: body.message, event: null, arrived: false } : null;
  if (followed) {
    say('good', `${status} ${body.message}.`);
    nextSample();
  } else {
    say('bad', `${status || ''} ${body?.error ?? 'no answer'}`.trim());
    form.querySelector('[aria-invalid]')?.focus();
  }
}

// car returns the body of the request. An empty field is left out. A number field that is not a
// number is sent as text.
function car() {
  const body = {};
  for (const name of names) {
    const { value, inputMode } = form.elements[name];
    if (value) body[name] = inputMode === 'numeric' && /^\s*-?\d+(\.\d+)?\s*$/.test(value) ? Number(value) : value;
  }
  return body;
}

function nextSample() {
  if (names.some((name) => form.elements[name].value !== String(samples[sample][name] ?? ''))) return; // the reader's own words stay
  sample = (sample + 1) % samples.length;
  fill();
}

function fill() {
  for (const name of names) form.elements[name].value = samples[sample][name] ?? '';
}

function say(kind, text, event) {
  answer.className = kind;
  const parts = [make('span', '', text)];
  if (event) {
    const link = make('a', '', 'Its records');
    link.href = `?event=${encodeURIComponent(event)}`;
    parts.push(' ', link);
  }
  answer.replaceChildren(...parts);
}

export const created = () => followed !== null;

export function show(state) {
  showLoad(state);
  if (!followed || followed.arrived) return;
  const event = state.events.find((e) => e.aggregateId === followed.carId);
  if (!event) return;
  const hop = followed.event?.hop;
  if (!followed.event) dots.follow(event.id, event.title);
  followed.event = event;
  if (event.hop >= 6) {
    followed.arrived = true;
    say('good', `${followed.status} ${followed.message}. On the bus after ${duration(event.ms?.bus)}.`, event.id);
  } else if (hop !== event.hop) {
    say('good', `${followed.status} ${followed.message}. Its event has come to ${signs[event.hop]}.`, event.id);
  }
}

function showLoad(state) {
  const refused = state.loadFailed > 0 ? ` ${plural(state.loadFailed, 'request was', 'requests were')} not answered with success, and promised nothing.` : '';
  write(byId('load-note'), `Cars that are created and changed by themselves, until you set it to 0.${refused}`);
  if (Date.now() - mine < 1500 || wanted !== null) return;
  if (Number(slider.value) !== state.load) slider.value = state.load;
  writeLoad(state.load);
}

function writeLoad(n) {
  write(byId('load-value'), plural(n, 'car/s', 'cars/s'));
  slider.setAttribute('aria-valuetext', plural(n, 'car a second', 'cars a second'));
}

slider.addEventListener('input', async () => {
  mine = Date.now();
  writeLoad(Number(slider.value));
  const busy = wanted !== null;
  wanted = Number(slider.value);
  if (busy) return; // the call that is under way sends the latest value
  for (let sent = null; sent !== wanted; ) {
    sent = wanted;
    const { ok, body } = await send('POST', '/load', { rate: sent });
    if (!ok) say('bad', body?.error ?? 'the load cannot be set');
  }
  wanted = null;
});
