// Events as dots that move along the line. A dot is a real event of the latest ones while the server still lists it; under load it is one
// of many, and goes on where the stations go on. At most `most` dots; frames are drawn only while one of them moves.

import { byId } from './write.js';
import { anchors } from './path.js';

const most = 60;
const perSegment = 240; // ms
const perState = 3; // new dots per state when there are many
const queued = 9; // dots that wait at one station; the backlog says how many there are
const ends = 7; // position of the subscriber; 0 is the client, 1-6 the stations

const canvas = byId('dots');
const context = canvas.getContext('2d');
const still = matchMedia('(prefers-reduced-motion: reduce)');

let dots = []; // {id, at, from (time to leave), hop (0: no longer listed), again}
let known = null; // ids of the state before: null before the first
let points = [];
let colors = { dot: '', again: '' };
let closed = new Set(); // hops that let nothing through
let frame = 0;
let before = 0;

export function start() {
  new ResizeObserver(measure).observe(canvas.parentElement);
  document.addEventListener('themechange', measure);
  still.addEventListener('change', () => clear());
  document.addEventListener('visibilitychange', () => clear());
  measure();
}

// measure is called when the path has got another size or colour.
export function measure() {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  context.setTransform(scale, 0, 0, scale, 0, 0);
  points = anchors(canvas);
  const style = getComputedStyle(canvas);
  colors = { dot: style.color, again: style.outlineColor };
  draw();
}

function clear() {
  dots = [];
  draw();
}

export function show(state) {
  const now = performance.now();
  watchGates(state);
  const listed = new Map(state.events.map((e) => [e.id, e]));
  const fresh = known ? state.events.filter((e) => !known.has(e.id)) : [];
  known = new Set(listed.keys());
  if (still.matches || document.hidden || points.length === 0) return;
  for (const dot of dots) {
    const event = listed.get(dot.id);
    dot.hop = event ? event.hop : 0;
    dot.again = dot.again || event?.copies > 1;
  }
  const take = fresh.length > perState * 2 ? perState : fresh.length;
  for (let i = 0; i < take && dots.length < most; i++) {
    const event = fresh[Math.floor((i * fresh.length) / take)];
    dots.push({ id: event.id, at: 0, from: now + (i * 100) / take, hop: event.hop, again: event.copies > 1 });
  }
  wake();
}

// A station through which nothing has passed for two seconds, while something waits at it or at the one before, lets nothing through.
function watchGates(state) {
  let before = 0; // what waits at the station before
  closed = new Set();
  for (const s of state.stations) {
    const here = s.backlog + s.inFlight;
    if (s.rate === 0 && before + here > 0) closed.add(s.hop);
    before = here;
  }
}

// limit is how far a dot may go: to the subscriber, or in front of the next station that its event has not passed.
function limit(dot) {
  if (dot.hop >= 6) return ends;
  if (dot.hop > 0) return dot.hop + 1;
  for (let hop = Math.max(1, Math.ceil(dot.at)); hop <= 6; hop++) if (closed.has(hop)) return hop;
  return ends;
}

function wake() {
  if (frame || dots.length === 0) return;
  before = performance.now();
  frame = requestAnimationFrame(step);
}

function step(now) {
  frame = 0;
  const moved = Math.max(0, now - before) / perSegment; // the frame's time may lie before the call that asked for it
  before = now;
  const waiting = new Map();
  let moves = false;
  dots = dots.filter((dot) => {
    if (dot.from > now) {
      moves = true;
      return true;
    }
    const to = limit(dot);
    if (to === ends) {
      dot.at += moved;
      moves = true;
      return dot.at < ends;
    }
    const place = waiting.get(to) ?? 0;
    waiting.set(to, place + 1);
    if (place >= queued) return false;
    const stop = to - 0.26 - place * 0.075;
    if (dot.at >= stop) return true;
    dot.at = Math.min(stop, dot.at + moved);
    moves = true;
    return true;
  });
  draw();
  if (moves) wake();
}

function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (points.length === 0) return;
  for (const dot of dots) {
    const i = Math.min(Math.floor(dot.at), points.length - 2);
    const part = dot.at - i;
    const x = points[i][0] + (points[i + 1][0] - points[i][0]) * part;
    const y = points[i][1] + (points[i + 1][1] - points[i][1]) * part;
    context.beginPath();
    context.arc(x, y, 4.5, 0, 2 * Math.PI);
    context.fillStyle = dot.again ? colors.again : colors.dot;
    context.fill();
  }
}
