// Events as dots that move along the line. A dot is a real event while the server still lists it.
// Under load a dot stands for many events, and moves on where the stations let events pass. A dot
// that has to wait becomes part of the pile before the station, and moves again when its event
// does. One event can be followed. Its dot is larger and slower, and has its own colour. Frames are
// drawn only while a dot moves.

import { byId, signs, write } from './write.js';
import { anchors, closed, fronts } from './path.js';

const most = 60;
const perSegment = 240; // ms
const perSegmentFollowed = 900;
const perState = 3; // new dots per state when there are many
const ends = 7; // position of the subscriber; 0 is the client, 1-6 the stations

const canvas = byId('dots');
const context = canvas.getContext('2d');
const still = matchMedia('(prefers-reduced-motion: reduce)');

let dots = []; // {id, at, from, hop, again}; from is the time to leave, hop is 0 if the event is no longer listed
let chosen = null; // the followed dot, {id, title, at, hop}
let hops = null; // of the events of the state before; null before the first state
let points = [];
let colors = { dot: '', again: '', chosen: '' };
let shut = new Set(); // hops that let nothing through
let piles = new Map(); // hop -> where the pile before it begins, which a waiting dot joins
let names = [];
let frame = 0;
let before = 0;

export function start(meta) {
  names = meta.hops.map((h) => h.name);
  new ResizeObserver(measure).observe(canvas.parentElement);
  document.addEventListener('themechange', measure);
  still.addEventListener('change', clear);
  document.addEventListener('visibilitychange', clear);
  measure();
}

// follow shows an event's way from the client on, also if the event has already arrived.
export function follow(id, title) {
  chosen = { id, title, at: 0, hop: hops?.get(id) ?? 6 };
  dots = dots.filter((dot) => dot.id !== id);
  tell();
  wake();
}

// measure is called after the path's size or colours have changed.
function measure() {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  context.setTransform(scale, 0, 0, scale, 0, 0);
  points = anchors(canvas);
  const style = getComputedStyle(canvas);
  colors = { dot: style.color, again: style.outlineColor, chosen: style.caretColor };
  draw();
}

function clear() {
  dots = [];
  draw();
}

export function show(state) {
  const now = performance.now();
  shut = closed(state);
  const passed = hops;
  hops = new Map(state.events.map((e) => [e.id, e.hop]));
  if (chosen) {
    chosen.hop = hops.get(chosen.id) ?? chosen.hop;
    tell();
  }
  if (still.matches || document.hidden || points.length === 0) return;
  piles = new Map([...fronts()].map(([hop, px]) => [hop, hop - Math.min(1, px / length(hop))]));
  const moving = new Set(dots.map((dot) => dot.id));
  for (const dot of dots) dot.hop = hops.get(dot.id) ?? 0;
  const fresh = passed ? state.events.filter((e) => e.id !== chosen?.id && !moving.has(e.id) && (passed.get(e.id) ?? 0) < e.hop) : [];
  const take = fresh.length > perState * 2 ? perState : fresh.length;
  for (let i = 0; i < take && dots.length < most; i++) {
    const event = fresh[Math.floor((i * fresh.length) / take)];
    dots.push({ id: event.id, at: passed.get(event.id) ?? 0, from: now + (i * 100) / take, hop: event.hop, again: event.copies > 1 });
  }
  wake();
}

// length returns the length of the line to a station, in px.
const length = (hop) => Math.hypot(points[hop][0] - points[hop - 1][0], points[hop][1] - points[hop - 1][1]);

// tell writes where the followed event is.
function tell() {
  byId('followed').hidden = false;
  const to = limit(chosen);
  const moves = !still.matches && chosen.at < stopBefore(to);
  const there = moves ? 'is on its way' : to === ends ? 'has arrived' : `waits before ${signs[to]} ${names[to - 1]}`;
  write(byId('followed'), `${chosen.title} ${there}`);
}

// stopBefore returns where the followed dot stands still.
const stopBefore = (to) => to - (to === ends ? 0.15 : 0.3);

// limit returns how far a dot may go, which is to the subscriber or to the next station that its
// event has not passed.
function limit(dot) {
  if (dot.hop >= 6) return ends;
  if (dot.hop > 0) return dot.hop + 1;
  for (let hop = Math.max(1, Math.ceil(dot.at)); hop <= 6; hop++) if (shut.has(hop)) return hop;
  return ends;
}

function wake() {
  if (frame || still.matches || (dots.length === 0 && !chosen)) return;
  before = performance.now();
  frame = requestAnimationFrame(step);
}

function step(now) {
  frame = 0;
  const took = Math.max(0, now - before); // the frame's time may be before the call that asked for it
  before = now;
  let moves = false;
  dots = dots.filter((dot) => {
    if (dot.from <= now) {
      const to = limit(dot);
      dot.at += took / perSegment;
      if (dot.at >= (piles.get(to) ?? ends)) return false;
    }
    moves = true;
    return true;
  });
  if (chosen) {
    const to = stopBefore(limit(chosen));
    if (chosen.at < to) {
      chosen.at = Math.min(to, chosen.at + took / perSegmentFollowed);
      moves = true;
      tell();
    }
  }
  draw();
  if (moves) wake();
}

function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (points.length === 0) return;
  for (const dot of dots) disc(dot.at, 4.5, dot.again ? colors.again : colors.dot);
  if (chosen && !still.matches) disc(chosen.at, 9, colors.chosen);
}

function disc(at, radius, color) {
  const i = Math.min(Math.floor(at), points.length - 2);
  const [from, to] = [points[i], points[i + 1]];
  context.beginPath();
  context.arc(from[0] + (to[0] - from[0]) * (at - i), from[1] + (to[1] - from[1]) * (at - i), radius, 0, 2 * Math.PI);
  context.fillStyle = color;
  context.fill();
}
