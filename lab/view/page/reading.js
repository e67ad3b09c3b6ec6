// The age of the database's last answer. Numbers that are older than a poll and its pause are grey,
// with their time beside them.

import { byId, clock, duration, write } from './write.js';

const old = 3000; // ms, for a pause of 2 s and the poll after it

export function show({ reading }) {
  const stale = reading.ageMs > old;
  document.body.classList.toggle('old', stale);
  write(byId('reading'), stale ? `The grey numbers are as of ${clock(reading.at)}, ${duration(Math.floor(reading.ageMs / 1000) * 1000)} ago.` : '');
}
