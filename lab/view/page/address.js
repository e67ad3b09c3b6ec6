// The state in the URL (?section=, ?event=, ?tour=). A copied URL opens the same page. Back and
// forward go through the states.

const listeners = [];

export const get = (key) => new URLSearchParams(location.search).get(key) || '';

// set changes keys of the URL. An empty value removes its key. Each change is an entry of the
// history.
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

// onChange calls the listener after every change.
export function onChange(listener) {
  listeners.push(listener);
}

function tell() {
  for (const listener of listeners) listener();
}

// follow turns clicks on the page's links, such as ?section=break, into changes of the state. It
// leaves clicks with a modifier key to the browser.
export function follow(event) {
  const link = event.target.closest?.('a[href^="?"]');
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return null;
  event.preventDefault();
  const changes = Object.fromEntries(new URLSearchParams(link.getAttribute('href')));
  set(changes);
  return changes;
}

addEventListener('popstate', tell);
