// The fleet: every store a cell, worst first; the figures of all of them above.

const STORES = {
  bad: ['✕', 'Serious', 'bad'],
  unknown: ['?', 'Silent, unknown', 'blank'],
  behind: ['!', 'Behind', 'warn'],
  good: ['✓', 'All here', 'good'],
};
const DENSE_FROM = 150;
const WORST_MAX = 14;

/** The worst that is true of a store. */
function stateOf(store) {
  if (store.errors_open > 0 || store.suspended > 0) return 'bad';
  if (store.standing === 'unknown') return 'unknown';
  return store.standing === 'behind' ? 'behind' : 'good';
}
const order = Object.keys(STORES);
const byWorst = (a, b) => order.indexOf(stateOf(a)) - order.indexOf(stateOf(b)) || (b.lag ?? 0) - (a.lag ?? 0) || (b.silent_s ?? Infinity) - (a.silent_s ?? Infinity) || b.exceptions_open - a.exceptions_open || a.store_id.localeCompare(b.store_id);
const lagText = (store) => (store.lag === null ? 'unknown' : store.lag === 0 ? '0' : `${count(store.lag)} · ${store.lag_s === null ? 'age unknown' : duration(store.lag_s)}`);
const heardText = (store) => (store.silent_s === null ? 'never' : `${duration(store.silent_s)} ago`);
const hrefOf = (store) => `/stores/${encodeURIComponent(store.store_id)}${location.search}`;

function about(store) {
  const lag = store.lag === null ? 'records missing: unknown' : `${counted(store.lag, 'record', 'records')} not here${store.lag && store.lag_s !== null ? `, whole up to ${duration(store.lag_s)} ago` : ''}`;
  return [`Store ${store.store_id}`, STORES[stateOf(store)][1], lag, `heard ${heardText(store)}`, `${counted(store.exceptions_open, 'exception', 'exceptions')} open`].join(' · ');
}

function startFleet() {
  let fleet = null;
  let filter = null;
  /** Rates: [time, records, duplicates] of the last minute. */
  let past = [];
  let day = new URLSearchParams(location.search).get('day') ?? daysOn(new Date().toISOString().slice(0, 10), -1);
  let closes = { day: null, at: 0, stores: null };
  const buttons = $('filters');
  for (const name of order) {
    const [symbol, text, tone] = STORES[name];
    const press = () => { filter = filter === name ? null : name; showStores(); };
    buttons.insertBefore(make('button', { type: 'button', class: tone, 'data-state': name, 'aria-pressed': 'false', onclick: press },
      make('span', { class: 'state' }, symbol), make('b', {}, '–'), make('span', {}, text)), $('find'));
  }

  function showFigures() {
    const { hub, exceptions, stores } = fleet;
    const count_of = (name) => stores.filter((store) => stateOf(store) === name).length;
    const [bad, silent, behind] = [count_of('bad'), count_of('unknown'), count_of('behind')];
    const tone = !hub.broker_connected || bad ? 'bad' : silent || behind ? 'warn' : stores.length ? 'good' : 'blank';
    mark($('verdict'), 'class', `verdict fades ${tone}`);
    say($('verdict-symbol'), { bad: '✕', warn: '!', good: '✓', blank: '?' }[tone]);
    const need = bad + silent + behind;
    say($('verdict-title'), !hub.broker_connected ? 'The hub does not reach the broker' : !stores.length ? 'No store has spoken yet' : need ? `${counted(need, 'store needs', 'stores need')} a look` : 'Everything is all right');
    const parts = [bad && `${count(bad)} with serious exceptions`, silent && `${count(silent)} silent`, behind && `${count(behind)} behind`].filter(Boolean);
    say($('verdict-text'), [parts.join(', '), `${count(stores.length - need)} of ${counted(stores.length, 'store is', 'stores are')} all here.`].filter(Boolean).join('; '));

    const known = stores.filter((store) => store.lag !== null);
    say($('lag'), counted(known.reduce((sum, store) => sum + store.lag, 0), 'record', 'records'));
    const late = known.filter((store) => store.lag > 0);
    facts($('lag-facts'), [
      ['In', counted(late.length, 'store', 'stores')],
      ['Longest', late.length ? duration(Math.max(...late.map((store) => store.lag_s ?? 0))) : 'nothing waits'],
      ['Unknown', silent ? `? ${counted(stores.length - known.length, 'store', 'stores')}` : 'none'],
    ]);

    const now = Date.parse(fleet.time);
    past = [...past.filter(([at]) => now - at < 60000), [now, hub.records, hub.duplicates]];
    const [[, records, duplicates], seconds] = [past[0], (now - past[0][0]) / 1000];
    const rate = (number) => (seconds > 0 ? (number / seconds).toFixed(number > 0 && number / seconds < 10 ? 1 : 0) : null);
    say($('rate'), seconds > 0 ? `${rate(hub.records - records)} records/s` : 'Measuring…');
    facts($('rate-facts'), [
      ['Sent again', seconds > 0 ? `${rate(hub.duplicates - duplicates)} records/s` : '–'],
      ['Sent again, ever', count(hub.duplicates)], ['Batches refused', count(hub.nacks)], ['Last commit', `${(hub.commit_microseconds / 1000).toFixed(1)} ms`],
    ]);
    say($('exceptions'), count(exceptions.open));
    for (const age of ['under_1h', 'under_1d', 'under_7d', 'older']) say($(age.replace('_', '-')), count(exceptions[age]));
    say($('hub'), `Hub ${hub.version} · ${count(hub.agents_online)} of ${counted(hub.agents, 'box', 'boxes')} online · ${counted(hub.records, 'record', 'records')} in the ledger, up to position ${count(hub.last_position)} · ${counted(hub.forks, 'fork', 'forks')}`);
  }

  function showCloses() {
    if ($('day').value !== day && document.activeElement !== $('day')) $('day').value = day;
    if (!closes.stores) return;
    const of = new Map();
    for (const { status } of closes.stores) of.set(status, (of.get(status) ?? 0) + 1);
    const silent = fleet.stores.filter((store) => !closes.stores.some((known) => known.store_id === store.store_id)).length;
    of.set('unknown', (of.get('unknown') ?? 0) + silent);
    facts($('closes'), Object.keys(CLOSES).filter((state) => of.get(state) || state === 'matched').map((state) => [`${close(state)[0]} ${close(state)[1]}`, [count(of.get(state) ?? 0), of.get(state) ? close(state)[2] : null]]));
  }

  function showStores() {
    const wanted = $('find').value.trim().toLowerCase();
    const found = fleet.stores.filter((store) => !wanted || store.store_id.toLowerCase().includes(wanted) || (store.region ?? '').toLowerCase().includes(wanted));
    for (const button of buttons.querySelectorAll('button')) {
      const name = button.dataset.state;
      say(button.querySelector('b'), count(found.filter((store) => stateOf(store) === name).length));
      mark(button, 'aria-pressed', String(filter === name));
    }
    const shown = found.filter((store) => !filter || stateOf(store) === filter);
    const regions = new Map();
    for (const store of shown) {
      const name = store.region ?? '';
      if (!regions.has(name)) regions.set(name, []);
      regions.get(name).push(store);
    }
    const sorted = [...regions].sort(([a], [b]) => (a === '') - (b === '') || a.localeCompare(b));
    $('regions').classList.toggle('dense', fleet.stores.length >= DENSE_FROM);
    list($('regions'), sorted, ([name]) => name, () => make('section', { class: 'region' }, make('header', {}, make('h3'), make('p', { class: 'quiet small' })), make('div', { class: 'cells' })), (section, [name, stores]) => {
      const [head, cells] = section.children;
      say(head.children[0], name || (sorted.length > 1 ? 'No region' : 'All stores'));
      const odd = stores.filter((store) => stateOf(store) !== 'good').length;
      say(head.children[1], `${counted(stores.length, 'store', 'stores')}, ${odd ? `${count(odd)} to look at` : 'all here'}`);
      stores.sort(byWorst);
      list(cells, stores, (store) => store.store_id, () => make('a', { tabindex: '-1' }, make('span', { 'aria-hidden': 'true' }), make('span')), (cell, store) => {
        const [symbol, , tone] = STORES[stateOf(store)];
        mark(cell, 'href', hrefOf(store));
        mark(cell, 'class', tone);
        mark(cell, 'aria-label', about(store));
        mark(cell, 'title', about(store));
        say(cell.children[0], symbol);
        say(cell.children[1], store.store_id);
      });
    });
    mark($('no-stores'), 'hidden', shown.length > 0);
    rove();
    const worst = found.filter((store) => stateOf(store) !== 'good').sort(byWorst).slice(0, WORST_MAX);
    rows($('worst'), worst.map((store) => {
      const [symbol, text, tone] = STORES[stateOf(store)];
      const more = store.exceptions_open > 0 && stateOf(store) !== 'bad' ? ` · ${counted(store.exceptions_open, 'exception', 'exceptions')}` : '';
      const what = stateOf(store) === 'bad' ? (store.errors_open ? `${count(store.errors_open)} serious` : 'Two boxes, one name') : text.split(',')[0];
      return { key: store.store_id, cells: [{ href: hrefOf(store), text: store.store_id }, [`${symbol} ${what}${more}`, `state ${tone}`], [lagText(store), 'number'], [heardText(store), 'number']] };
    }));
    mark($('none-worst'), 'hidden', worst.length > 0);
    mark($('worst').closest('table'), 'hidden', worst.length === 0);
  }

  /** One stop for the Tab key in the whole grid; arrows go on from there. */
  function rove(to) {
    const cells = [...$('regions').querySelectorAll('.cells a')];
    const stop = to ?? cells.find((cell) => cell.tabIndex === 0) ?? cells[0];
    for (const cell of cells) if ((cell.tabIndex === 0) !== (cell === stop)) cell.tabIndex = cell === stop ? 0 : -1;
  }
  $('regions').addEventListener('keydown', (event) => {
    const cells = [...$('regions').querySelectorAll('.cells a')];
    const at = cells.indexOf(event.target);
    const here = event.target.getBoundingClientRect();
    const near = (rows) => {
      const beyond = cells.filter((cell) => { const top = cell.getBoundingClientRect().top; return rows > 0 ? top > here.top + 2 : top < here.top - 2; });
      const distance = (cell) => { const box = cell.getBoundingClientRect(); return Math.abs(box.top - here.top) * 1000 + Math.abs(box.left - here.left); };
      return beyond.sort((a, b) => distance(a) - distance(b))[0];
    };
    const moves = { ArrowRight: () => cells[at + 1], ArrowLeft: () => cells[at - 1], ArrowDown: () => near(1), ArrowUp: () => near(-1), Home: () => cells[0], End: () => cells.at(-1) };
    if (at < 0 || !moves[event.key]) return;
    event.preventDefault();
    const to = moves[event.key]();
    if (to) { rove(to); to.focus(); }
  });
  const point = (event) => { const cell = event.target.closest('.cells a'); if (cell) say($('pointed'), cell.getAttribute('aria-label')); };
  $('regions').addEventListener('focusin', point);
  $('regions').addEventListener('pointerover', point);
  $('find').addEventListener('input', () => fleet && showStores());
  $('day').addEventListener('change', () => {
    if (!$('day').value) return;
    day = $('day').value;
    const url = new URL(location.href);
    url.searchParams.set('day', day);
    history.replaceState(null, '', url);
    again();
  });

  async function look() {
    fleet = await ask('/v1/fleet');
    if (closes.day !== day || Date.now() - closes.at > 60000) closes = { day, at: Date.now(), ...(await ask(`/v1/reconciliation?business_day=${encodeURIComponent(day)}`)) };
    showFigures();
    showCloses();
    showStores();
  }
  const again = live(3000, look, 'the hub');
}

if (document.body.dataset.page === 'fleet') startFleet();

