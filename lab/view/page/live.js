// The connection to the server. It receives what the server sends (GET /live), and sends the page's
// requests. It waits for a server that is gone. A server that was started again has a new token,
// which it fetches.

// The server sends at least one state a second. It counts as gone after so many looks in a row that
// found none. A clock would also count the time in which a busy machine did not run the page.
const maxSilent = 15;
const look = 1000; // ms between looks
const retry = 1000;

let token = document.querySelector('meta[name=view-token]').content;
let source = null;
let lastState = 0;
let connected = null; // not known yet
let timer = 0;
let silent = 0; // looks since the last state

// connect calls on.state, on.series, and on.connection(connected, sinceMs) until the page is
// closed. It calls on.again when the server is back.
export function connect(on) {
  const gone = () => {
    if (connected !== false) {
      connected = false;
      on.connection(false, lastState);
    }
  };
  const open = () => {
    source = new EventSource('/live');
    source.addEventListener('state', (message) => {
      const state = JSON.parse(message.data);
      lastState = Date.now();
      silent = 0;
      if (!connected) {
        connected = true;
        on.connection(true, lastState);
        on.again();
      }
      on.state(state);
    });
    source.addEventListener('series', (message) => on.series(JSON.parse(message.data)));
    source.addEventListener('error', () => {
      gone();
      reopen();
    });
  };
  // EventSource would reconnect by itself, but it gives up for good after an answer that is not a
  // stream.
  const reopen = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
    timer = setTimeout(open, retry);
  };
  setInterval(() => {
    if (!connected || ++silent < maxSilent) return;
    gone();
    reopen();
  }, look);
  open();
}

async function newToken() {
  const page = await (await fetch('/', { cache: 'no-store' })).text();
  const found = /name="view-token" content="([^"]*)"/.exec(page)?.[1];
  const changed = Boolean(found) && found !== token;
  if (changed) token = found;
  return changed;
}

export async function getJSON(path) {
  const response = await fetch(path, { cache: 'no-store' });
  return { ok: response.ok, status: response.status, body: await readBody(response) };
}

// send asks the server to change something. It returns {ok, status, body}. status is 0 if the
// server does not answer.
export async function send(method, path, body) {
  const ask = () => fetch(path, {
    method, cache: 'no-store', headers: { 'Content-Type': 'application/json', 'X-View-Token': token }, body: body === undefined ? undefined : JSON.stringify(body),
  });
  try {
    let response = await ask();
    if (response.status === 403 && (await newToken())) response = await ask();
    return { ok: response.ok, status: response.status, body: await readBody(response) };
  } catch {
    return { ok: false, status: 0, body: { error: 'nobody answers: is make dev running?' } };
  }
}

async function readBody(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return { error: text };
  }
}
