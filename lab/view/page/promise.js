// The line that the whole page is about, and one sentence that says how it stands.

import { byId, count, plural, write } from './write.js';

const totals = document.querySelectorAll('#promise [data-total]');

export function show(state) {
  for (const element of totals) write(element, count(state.totals[element.dataset.total]));
  write(document.querySelector('[data-word=cars]'), state.totals.cars === 1 ? 'car' : 'cars');
  write(document.querySelector('[data-word=suppressed]'), state.totals.suppressed === 1 ? 'duplicate' : 'duplicates');
  byId('promise').classList.toggle('broken', state.totals.lost > 0);
  const [kind, text] = verdict(state);
  byId('verdict').className = `verdict ${kind}`;
  write(byId('verdict'), text);
}

function verdict(state) {
  const t = state.totals;
  const fault = state.switches.some((s) => s.on);
  if (t.lost > 0) {
    return ['bad', `${plural(t.lost, 'committed event is', 'committed events are')} neither on the bus nor parked, and nothing holds them any more. That must not happen.`];
  }
  if (t.onTheWay > 0) {
    return fault
      ? ['fault', `${plural(t.onTheWay, 'event is', 'events are')} held up or on the way, and safe: in the table, the WAL or the stream.`]
      : ['moving', `${plural(t.onTheWay, 'event', 'events')} on the way.`];
  }
  if (state.problem) return ['fault', `As of the database's last answer. ${state.problem}`];
  if (t.committed === 0) return ['', 'Nothing was committed yet.'];
  if (t.counted !== t.cars && state.subscriberFailures > 0) {
    return ['fault', `Everything that was committed is on the bus; ${plural(state.subscriberFailures, 'message waits', 'messages wait')} in the subscriber's failure queue.`];
  }
  if (t.counted !== t.cars) return ['moving', 'Everything that was committed is on the bus; the subscriber is still counting.'];
  const parked = t.parked > 0 ? `, or parked where an operator finds it (${count(t.parked)})` : '';
  return ['good', `Everything that was committed is on the bus${parked}, and every car is counted once.`];
}
