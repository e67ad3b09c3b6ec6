// The switches. Each says what it does here and what happens on AWS in that case. It shows the
// server's error if it cannot be switched.

import { attribute, byId, plural, signs, write } from './write.js';
import { send } from './live.js';

const switches = new Map(); // name -> {definition, elements, state, asked}

export function start(meta) {
  const list = byId('switches');
  for (const definition of [...meta.switches].sort((a, b) => a.hop - b.hop)) {
    if (!switches.has(definition.name)) list.append(add(definition));
    const one = switches.get(definition.name);
    one.definition = definition;
    write(one.hop, signs[definition.hop] ?? '');
    write(one.button, definition.label);
    write(one.here, definition.text);
    write(one.there, `On AWS: ${definition.aws}`);
    attribute(one.button, 'aria-disabled', definition.disabled ? 'true' : null);
    write(one.refused, definition.disabled ?? '');
  }
}

byId('all-off').addEventListener('click', allOff);

function add(definition) {
  const { name, once } = definition;
  const item = byId('switch-template').content.cloneNode(true).firstElementChild;
  const find = (selector) => item.querySelector(selector);
  const one = {
    item, button: find('button'), hop: find('.hop'), struck: find('.struck'), here: find('.here'), there: find('.there'), refused: find('.refused'),
    state: { on: false }, asked: false,
  };
  one.button.dataset.switch = name;
  if (once) {
    one.button.className = 'once';
  } else {
    one.button.setAttribute('role', 'switch');
    one.button.setAttribute('aria-checked', 'false');
  }
  one.here.id = `switch-${name}-here`;
  one.there.id = `switch-${name}-there`;
  one.button.setAttribute('aria-describedby', `${one.here.id} ${one.there.id}`);
  one.button.addEventListener('click', () => ask(name, once || !one.state.on));
  switches.set(name, one);
  return item;
}

// ask asks the server to switch. It does not disable the button meanwhile, because a disabled
// button loses the focus.
async function ask(name, on) {
  const one = switches.get(name);
  if (one.asked || one.definition.disabled) return;
  one.asked = true;
  one.button.setAttribute('aria-busy', 'true');
  write(one.refused, '');
  const { ok, body } = await send('POST', `/switches/${encodeURIComponent(name)}`, { on });
  one.asked = false;
  one.button.removeAttribute('aria-busy');
  if (!ok) write(one.refused, body?.error ?? 'it cannot be done now');
  else if (body && typeof body.on === 'boolean') showOne(one, { ...one.state, ...body });
}

// allOff resolves when every switch that was on has been asked to be off.
export async function allOff() {
  await Promise.all([...switches].filter(([, one]) => one.state.on).map(([name]) => ask(name, false)));
}

export const statesOn = () => [...switches.values()].filter((one) => one.state.on).map((one) => one.definition.state);

export function show(state) {
  for (const s of state.switches) {
    const one = switches.get(s.name);
    if (one) showOne(one, s);
  }
  byId('all-off').hidden = !state.switches.some((s) => s.on);
}

function showOne(one, s) {
  one.state = s;
  if (one.button.getAttribute('role') === 'switch') attribute(one.button, 'aria-checked', String(s.on));
  if (!one.asked) attribute(one.button, 'aria-busy', s.busy ? 'true' : null);
  one.item.classList.toggle('on', s.on);
  write(one.struck, s.struck > 0 ? plural(s.struck, one.definition.count.one, one.definition.count.many) : '');
  if (s.error) write(one.refused, s.error);
}
