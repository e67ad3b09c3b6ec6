// The line with the promise, and one sentence that says whether it holds.

import { byId, clock, count, plural, write } from './write.js';

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
      ? ['moving', `${count(t.onBus)} of ${count(t.committed)} events are on the bus. ${plural(t.onTheWay, 'event waits', 'events wait')}, safe in the table, the WAL or the stream.`]
      : ['moving', `${plural(t.onTheWay, 'event', 'events')} on the way.`];
  }
  const { current, settled, at } = state.reading;
  if (state.problem) return ['fault', `At ${clock(at)}, when the database last answered, everything that was committed was on the bus.`];
  if (t.committed === 0) return ['', 'Nothing was committed yet.'];
  if (!current) return ['moving', `What was committed until ${clock(at)} is on the bus. Later commits are not counted yet.`];
  if (t.counted !== t.cars && state.subscriberFailures > 0) {
    return ['fault', `Everything that was committed is on the bus. ${plural(state.subscriberFailures, 'message waits', 'messages wait')} in the subscriber's failure queue.`];
  }
  if (t.counted !== t.cars && !settled) {
    return ['moving', `Everything that was committed is on the bus. ${plural(state.subscriberQueue, 'message waits', 'messages wait')} in the subscriber's queue.`];
  }
  if (t.counted !== t.cars && state.held.events > 0) {
    return ['moving', `Everything that was committed is on the bus. The subscriber holds ${plural(state.held.events, 'event', 'events')} until an earlier version of their car comes.`];
  }
  if (t.counted < t.cars) {
    return ['fault', `${plural(t.cars - t.counted, 'car is', 'cars are')} not counted, and nothing is on its way to the subscriber. ${remedy}`];
  }
  if (t.counted > t.cars) {
    return ['fault', `${plural(t.counted - t.cars, 'more car is', 'more cars are')} counted than there are, and nothing is on its way to the subscriber. ${remedy}`];
  }
  const parked = t.parked > 0 ? `, or parked where an operator finds it (${count(t.parked)})` : '';
  return ['good', `Everything that was committed is on the bus${parked}, and the subscriber has counted every car once.`];
}

const remedy = 'To send the events again, run bin/outboxctl replay --aggregate-type Car. If that changes nothing, start with empty data: FRESH=1 make dev.';
