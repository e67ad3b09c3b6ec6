// The state that a URL keeps: ?section=, ?event=, ?tour=. A copied URL opens the same, back and forward go through it.

const listeners = [];

export const get = (key) => new URLSearchParams(location.search).get(key) || '';

// set changes keys of the URL; an empty value removes its key. It is an entry of the history of its own, unless nothing changes.
export function set(changes) {
  const url = new URL(location.href);
  for (const [key, value] of Object.entries(changes)) {
    if (value) url.searchParams.set(key, value);
    else url.searchParams.delete(key);
  }
  url.hash = '';
  if (url.href === location.href) return;
  history.pushState(null, '', url);
  tell();
}

// onChange calls after every change.
export function onChange(listener) {
  listeners.push(listener);
}

function tell() {
  for (const listener of listeners) listener();
}

// follow takes links of the page, such as ?section=break, as changes of the state. Modified clicks stay the browser's.
export function follow(event) {
  const link = event.target.closest?.('a[href^="?"]');
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return null;
  event.preventDefault();
  const changes = Object.fromEntries(new URLSearchParams(link.getAttribute('href')));
  set(changes);
  return changes;
}

addEventListener('popstate', tell);
