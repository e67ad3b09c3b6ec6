// The guided tour has five experiments, each with its steps, what is expected, and how it ended.

import { attribute, byId, make, write } from './write.js';
import { send } from './live.js';
import * as address from './address.js';

const experiments = new Map(); // n -> {definition, elements}

export function start(meta) {
  const list = byId('experiments');
  for (const definition of meta.tour) {
    if (!experiments.has(definition.n)) list.append(add(definition.n));
    const one = experiments.get(definition.n);
    one.definition = definition;
    write(one.open, `${definition.n}. ${definition.title}`);
    write(one.intro, definition.intro);
    write(one.expect, `Expected: ${definition.expect}`);
    one.start.setAttribute('aria-label', `Start experiment ${definition.n}`);
    one.steps.replaceChildren(...definition.steps.map((text) => make('li', '', text)));
  }
  showChosen();
}

address.onChange(showChosen);

function add(n) {
  const item = byId('experiment-template').content.cloneNode(true).firstElementChild;
  const find = (selector) => item.querySelector(selector);
  const one = { item, open: find('.open'), start: find('.start'), more: find('.more'), intro: find('.intro'), steps: find('.steps'), expect: find('.expect'), result: find('.result') };
  one.more.id = `experiment-${n}`;
  one.open.setAttribute('aria-controls', one.more.id);
  one.start.dataset.tour = n;
  one.result.dataset.tourResult = n;
  one.open.addEventListener('click', () => address.set({ tour: address.get('tour') === String(n) ? '' : String(n) }));
  one.start.addEventListener('click', () => begin(n));
  experiments.set(n, one);
  return item;
}

export async function begin(n) {
  address.set({ tour: String(n) });
  const { ok, body } = await send('POST', `/tour/${n}${byId('by-hand').checked ? '?by-hand' : ''}`);
  const { result } = experiments.get(n);
  if (!ok) {
    result.className = 'result small failed';
    write(result, body?.error ?? 'it cannot be started now');
  }
}

export const goOn = () => send('POST', '/tour/next');

export const stop = () => send('DELETE', '/tour');

function showChosen() {
  const chosen = Number(address.get('tour'));
  for (const [n, one] of experiments) {
    one.more.hidden = n !== chosen;
    attribute(one.open, 'aria-expanded', String(n === chosen));
  }
}

export const titleOf = (n) => experiments.get(n)?.definition.title ?? '';

export function show(state) {
  const { running, step, results } = state.tour;
  for (const [n, one] of experiments) {
    one.item.classList.toggle('running', n === running);
    attribute(one.start, 'aria-disabled', running ? 'true' : null);
    [...one.steps.children].forEach((item, i) => {
      const now = n === running && i + 1 === step;
      item.className = n === running && i + 1 < step ? 'done' : now ? 'now' : '';
      attribute(item, 'aria-current', now ? 'step' : null);
    });
    const result = results?.find((r) => r.n === n);
    if (n === running) {
      one.result.className = 'result small';
      write(one.result, 'running');
    } else if (result) {
      one.result.className = `result small ${result.passed ? 'passed' : 'failed'}`;
      write(one.result, `${result.passed ? 'Passed' : 'Not passed'}: ${result.text}`);
    } else if (one.result.className === 'result small') {
      write(one.result, '');
    }
  }
}
