// Functions that write numbers, times and text into elements. Text is always text. Nothing here or
// elsewhere makes HTML of it.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

export const byId = (id) => document.getElementById(id);

// write sets an element's text if it differs, because setting an equal text would still cost a
// layout.
export function write(element, text) {
  const value = String(text);
  if (element.firstChild && element.firstChild === element.lastChild && element.firstChild.nodeType === Node.TEXT_NODE) {
    if (element.firstChild.data !== value) element.firstChild.data = value;
  } else if (element.textContent !== value) {
    element.textContent = value;
  }
}

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// attribute sets an attribute, or removes it if the value is null.
export function attribute(element, name, value) {
  if (value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

export const count = (n) => whole.format(n ?? 0);

// compact formats a number for a place of five characters at most.
export const compact = (n) => (n < 100_000 ? count(n) : `${count(n / 1000)}k`);

export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

export function rate(n) {
  return n >= 0.05 && n < 9.95 ? n.toFixed(1) : count(n);
}

export function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 9.95) return `${ms > 0 ? ms.toFixed(1) : 0} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3600e3) return `${Math.floor(ms / 60e3)} min ${Math.floor((ms % 60e3) / 1000)} s`;
  return `${(ms / 3600e3).toFixed(1)} h`;
}

export function bytes(n) {
  if (!(n >= 1024)) return `${count(n)} B`;
  const units = ['KiB', 'MiB', 'GiB'];
  let unit = -1;
  do {
    n /= 1024;
    unit++;
  } while (n >= 1024 && unit < units.length - 1);
  return `${n < 9.95 ? n.toFixed(1) : count(n)} ${units[unit]}`;
}

const pad = (n, to = 2) => String(n).padStart(to, '0');

// clock formats a time as the reader's local time of day.
export function clock(time, millis = false) {
  const d = new Date(time);
  if (Number.isNaN(d.getTime())) return '–';
  const text = `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
  return millis ? `${text}.${pad(d.getMilliseconds(), 3)}` : text;
}

export const signs = ['', '①', '②', '③', '④', '⑤', '⑥', '⑦'];
