// What all pages share: asking the API, showing values in place, words for numbers.
//
// Text of others is only ever put in as text. The token, where one is needed, lives in this tab and ends with it.

const TOKEN = 'counterfoil.token';
const PATIENCE_MS = 8000;
const $ = (id) => document.getElementById(id);

/** An element: attributes by name, `class`, `on…` as listener; children are nodes or text. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else mark(node, name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets an attribute where it differs; `null` and `false` take it away. */
function mark(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? '' : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/** Sets a text where it differs, so that nothing flickers and nothing is read out twice. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Announces to those who do not see the page. */
function announce(text) {
  say($('said'), text);
}

/** Makes the children of `parent` those of `items`, keeping what has the same key. */
function list(parent, items, keyOf, create, update) {
  const keys = new Set(items.map((item) => String(keyOf(item))));
  const known = new Map();
  // What goes, goes first: what stays is then not moved, and keeps the focus.
  for (const child of [...parent.children]) {
    if (keys.has(child.dataset.key)) known.set(child.dataset.key, child);
    else child.remove();
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
}

/** Terms and their values, in place; a value is text, or [text, tone]. */
function facts(parent, pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined);
  const flat = shown.flatMap(([term, value]) => [{ key: `dt ${term}`, tag: 'dt', text: term }, { key: `dd ${term}`, tag: 'dd', text: value }]);
  list(parent, flat, (item) => item.key, (item) => make(item.tag), (node, item) => {
    const [text, tone] = Array.isArray(item.text) ? item.text : [item.text, null];
    say(node, text);
    mark(node, 'class', tone && `state ${tone}`);
  });
}

/** Rows of a table body: each a list of cells, a cell being text or [text, class]; a cell that has `href` is a link. */
function rows(body, lines) {
  list(body, lines, (line) => line.key, () => make('tr'), (tr, line) => {
    list(tr, line.cells.map((cell, index) => ({ cell, index })), ({ index }) => index,
      ({ index, cell }) => make(index === 0 ? 'th' : 'td', index === 0 ? { scope: 'row' } : {}, cell && cell.href ? make('a') : ''),
      (node, { cell }) => {
        if (cell && cell.href) {
          mark(node.firstElementChild, 'href', cell.href);
          say(node.firstElementChild, cell.text);
          return;
        }
        const [text, tone] = Array.isArray(cell) ? cell : [cell, null];
        say(node, text);
        mark(node, 'class', tone);
      });
  });
}

const whole = new Intl.NumberFormat('en');
const count = (number) => whole.format(number);
const counted = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  const two = (large, unit, small, of) => (small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${of}`);
  if (s < 86400) return two(Math.floor(s / 3600), 'h', Math.floor((s % 3600) / 60), 'min');
  return two(Math.floor(s / 86400), 'd', Math.floor((s % 86400) / 3600), 'h');
}

function bytes(number) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [value, unit] = [number, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

const clock = (when) => new Date(when).toLocaleTimeString('en-GB');
const moment = (when) => (when ? new Date(when).toLocaleString('en-GB') : null);
const secondsSince = (when) => (when ? (Date.now() - Date.parse(when)) / 1000 : null);
/** A code of the API as words. */
const words = (code) => code.replaceAll('_', ' ').toLowerCase();
/** What a record is known as, for a person. */
function known(identity) {
  const receipt = /^t\/(.*)\/(\d{4}-\d{2}-\d{2})\/(\d+)\/\d+$/.exec(identity);
  return receipt ? `Receipt ${receipt[3]} of till ${receipt[1]} on ${receipt[2]}` : `Document ${identity.replace(/^d\//, '')}`;
}
/** `YYYY-MM-DD` so many days on. */
const daysOn = (day, days) => new Date(Date.parse(`${day}T00:00:00Z`) + days * 86400000).toISOString().slice(0, 10);

/** Each state of a day's close: symbol, words, tone. */
const CLOSES = {
  matched: ['✓', 'Matches', 'good'],
  unknown: ['?', 'Nothing known', 'blank'],
  open: ['○', 'Not closed yet', 'blank'],
  pending: ['…', 'Records on their way', 'warn'],
  late_after_close: ['!', 'Came after the close', 'warn'],
  over: ['✕', 'Too much counted', 'bad'],
  short: ['✕', 'Too little counted', 'bad'],
};
const close = (state) => CLOSES[state] ?? ['?', words(state), 'blank'];
const SEVERITIES = { error: ['✕', 'Serious', 'bad'], warning: ['!', 'Look at it', 'warn'], info: ['i', 'For notice', 'blank'] };
const severity = (name) => SEVERITIES[name] ?? ['!', words(name), 'warn'];
const seriousness = (name) => ['info', 'warning', 'error'].indexOf(name);

/** The API said no. */
class Refusal extends Error {
  constructor(status, problem) {
    const faults = (problem.faults ?? []).map((fault) => `${fault.pointer.slice(1)}: ${fault.detail}`);
    super([problem.title ?? `Status ${status}`, problem.detail, ...faults].filter(Boolean).join('. '));
    this.status = status;
  }
}

let answeredAt = null;
let lostAt = null;
let tokenWanted = null;

/** Asks for a token, once for all calls that wait for one. */
function wantToken(reason) {
  const dialog = $('token');
  tokenWanted ??= new Promise((resolve) => {
    say($('token-reason'), reason);
    dialog.querySelector('form').onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(TOKEN, $('token-text').value.trim());
      $('token-text').value = '';
      dialog.close();
      tokenWanted = null;
      resolve();
    };
    dialog.oncancel = (event) => event.preventDefault();
    dialog.showModal();
  });
  return tokenWanted;
}

/** Calls the API; throws a `Refusal` where it says no, and something else where it says nothing. */
async function ask(path, body) {
  for (;;) {
    if (tokenWanted) await tokenWanted;
    const token = sessionStorage.getItem(TOKEN);
    const headers = { Accept: 'application/json', ...(token ? { Authorization: `Bearer ${token}` } : {}), ...(body ? { 'Content-Type': 'application/json' } : {}) };
    const options = { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) };
    const answer = await fetch(path, options);
    answeredAt = Date.now();
    lostAt = null;
    if (answer.status === 401) {
      await wantToken(token ? 'That token is not known. Please try again.' : 'This page needs a token. Ask your administrator for one.');
      continue;
    }
    const text = await answer.text();
    let value = {};
    try { value = JSON.parse(text); } catch { /* A proxy's own words are not ours. */ }
    if (!answer.ok) throw new Refusal(answer.status, value);
    return value;
  }
}

/** Looks again and again, never twice at once, and not while nobody looks. `look` may throw: then there was no answer. */
function live(interval, look, who) {
  let [timer, busy] = [null, false];
  const round = async () => {
    if (busy) return;
    busy = true;
    clearTimeout(timer);
    try {
      await look();
      refused = null;
    } catch (error) {
      if (error instanceof Refusal) refused = error.message;
      else lostAt ??= answeredAt ?? Date.now();
    }
    busy = false;
    shown();
    if (!document.hidden) timer = setTimeout(round, interval);
  };
  let refused = null;
  const shown = () => {
    const lost = lostAt !== null;
    const age = answeredAt === null ? null : (Date.now() - answeredAt) / 1000;
    document.body.classList.toggle('stale', lost || refused !== null);
    mark($('lost'), 'hidden', !(lost || refused));
    const since = answeredAt === null ? 'yet' : `since ${clock(lostAt ?? answeredAt)}`;
    say($('lost'), refused ?? (lost ? `✕ No answer from ${who} ${since}. ${answeredAt === null ? '' : 'What is shown is from then. '}This page tries again by itself.` : ''));
    say($('live'), lost ? `✕ No answer for ${age === null ? 'now' : duration(age)}` : age === null ? 'Asking…' : `● Live, as of ${clock(answeredAt)}`);
  };
  document.addEventListener('visibilitychange', () => { if (!document.hidden) round(); });
  setInterval(shown, 1000);
  round();
  return round;
}

