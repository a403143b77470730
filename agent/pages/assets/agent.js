// The status page: is everything all right in this store, and if not, what is to be done.

const SLOW_S = 120;
const DISK_PART_MAX = 0.8;
const DISK_FREE_MIN = 512 * 1024 * 1024;
const CLOCK_OFF_S = 60;
const LANES = { trade: 'Sales and money', stock: 'Stock movements', ops: 'Reports of the box' };
const MATTERS_MAX = 100;

let status = null;
let exceptions = [];
let dayState = null;
let seen = '';
let seenAt = 0;
let chosenDay = new URLSearchParams(location.search).get('day');
/** What was resolved from here, by id: it stays in sight until the page is left. */
const resolved = new Map();

const waiting = () => Object.values(status.lanes).reduce((sum, lane) => sum + lane.waiting, 0);
const oldest = () => Math.max(0, ...Object.values(status.lanes).map((lane) => lane.oldest_unsent_age_s ?? 0));
const isReached = () => status.uplink.connected && status.uplink.welcomed;
/** Seconds that the box's clock is ahead of this device's. */
const clockOff = () => (Date.parse(status.time) - Date.now()) / 1000;
const diskPart = () => status.disk.journal_bytes / Math.max(1, status.disk.journal_bytes_max);
const isDiskTight = () => diskPart() > DISK_PART_MAX || status.disk.free_bytes < DISK_FREE_MIN;

/** Everything that is not as it should be: tone, words, what it means. */
function matters() {
  const found = [];
  const add = (tone, title, text) => found.push({ tone, title, text });
  if (status.mode === 'drain_only') add('bad', 'The disk of this box failed', 'Tills are being refused. What was recorded before is still being delivered. Call the technician.');
  if (status.mode === 'full') add('bad', 'The disk is full', 'New sales are refused until head office has taken some over. Nothing that was recorded is lost.');
  if (status.mode === 'stopping') add('warn', 'The box is stopping', 'Tills will be answered again when it has started.');
  if (status.uplink.contested_lanes > 0) add('bad', 'Another box runs under this name', 'It was copied or set back. Call the technician.');
  if (!isReached()) add('warn', 'Head office cannot be reached', `Sales go on as usual and are safe on this box. ${waiting() === 0 ? 'Nothing waits.' : `${counted(waiting(), 'record waits', 'records wait')}, the oldest for ${duration(oldest())}.`}`);
  else if (oldest() > SLOW_S) add('warn', 'Delivery to head office is slow', `${counted(waiting(), 'record waits', 'records wait')}, the oldest for ${duration(oldest())}.`);
  if (isDiskTight() && status.mode === 'accepting') add('warn', 'The disk is filling up', `${Math.round(diskPart() * 100)} % of its share is used, ${bytes(status.disk.free_bytes)} are free.`);
  if (status.clock !== 'synchronised' && Math.abs(clockOff()) > CLOCK_OFF_S) add('warn', 'The clock of this box is probably wrong', `It differs from this device by ${duration(Math.abs(clockOff()))}.`);
  if (!chosenDay && dayState && ['over', 'short'].includes(dayState)) add('warn', 'Today’s close does not match', `${close(dayState)[1]}; see “Day close” below.`);
  const errors = exceptions.filter((one) => one.severity === 'error').length;
  const open = exceptions.filter((one) => one.severity !== 'info').length;
  if (open > 0) add(errors > 0 ? 'bad' : 'warn', `${counted(open, 'matter needs', 'matters need')} a person`, errors > 0 ? `${count(errors)} serious. See “What needs a person” below.` : 'See “What needs a person” below.');
  return found.sort((a, b) => (b.tone === 'bad') - (a.tone === 'bad'));
}

function showVerdict() {
  const [worst, ...rest] = matters();
  mark($('verdict'), 'class', `verdict fades ${worst?.tone ?? 'good'}`);
  say($('verdict-symbol'), worst ? (worst.tone === 'bad' ? '✕' : '!') : '✓');
  say($('verdict-title'), worst?.title ?? 'Everything is all right');
  const quiet = waiting() === 0 ? 'Every record is safe on this box and at head office.' : `Every record is safe on this box; ${counted(waiting(), 'is', 'are')} on the way to head office.`;
  const lines = worst ? [{ title: '', text: worst.text }, ...rest] : [{ title: '', text: quiet }];
  list($('verdict-matters'), lines, (line) => line.title, () => make('li', {}, make('b'), make('span')), (li, line) => {
    say(li.firstChild, line.title && `${line.title}. `);
    say(li.lastChild, line.text);
  });
}

function figure(id, symbol, text, tone) {
  say($(id), `${symbol} ${text}`);
  mark($(id), 'class', `figure state ${tone}`);
}

function showCards() {
  const { uplink, disk, lanes } = status;
  if (isReached()) figure('office', '✓', 'Connected', 'good');
  else if (uplink.connected) figure('office', '!', 'No answer yet', 'warn');
  else figure('office', '!', 'Not connected', 'warn');
  facts($('office-facts'), [
    ['Last word', uplink.last_word_at ? `${duration(secondsSince(uplink.last_word_at) + clockOff())} ago` : 'none since the start'],
    ['Line', uplink.connected ? 'up' : 'down'],
    ['Attempts since', uplink.attempts > 0 && !isReached() ? count(uplink.attempts) : null],
  ]);
  say($('waiting'), counted(waiting(), 'record', 'records'));
  facts($('waiting-facts'), [
    ['Oldest', waiting() === 0 ? 'none waits' : duration(oldest())],
    ...Object.entries(lanes).filter(([, lane]) => lane.waiting > 0).map(([name, lane]) => [LANES[name] ?? name, count(lane.waiting)]),
  ]);
  const part = Math.round(diskPart() * 100);
  const tone = disk.full ? 'bad' : isDiskTight() ? 'warn' : 'good';
  figure('disk', disk.full ? '✕' : isDiskTight() ? '!' : '✓', disk.full ? 'Full' : isDiskTight() ? 'Filling up' : 'Enough room', tone);
  mark($('disk-bar'), 'class', `bar ${tone}`);
  mark($('disk-bar'), 'aria-label', `${part} percent used`);
  mark($('disk-bar').querySelector('rect'), 'width', Math.max(1, part));
  facts($('disk-facts'), [['Used of its share', `${bytes(disk.journal_bytes)} of ${bytes(disk.journal_bytes_max)}`], ['Free on the disk', bytes(disk.free_bytes)]]);
  const off = clockOff();
  if (status.clock === 'synchronised') figure('clock', '✓', 'Clock is right', 'good');
  else if (Math.abs(off) <= CLOCK_OFF_S) figure('clock', '○', 'Clock agrees', 'blank');
  else figure('clock', '!', 'Clock is off', 'warn');
  facts($('box-facts'), [
    ['Its time', moment(status.time)],
    ['Time service', status.clock === 'synchronised' ? 'in step' : status.clock === 'behind' ? 'clock behind its own records' : 'none'],
    ['Running for', duration(status.uptime_s)],
    ['Version', status.version],
  ]);
}

function showTechnical() {
  const { uplink, disk } = status;
  const lanes = Object.keys(LANES).filter((name) => status.lanes[name]).map((name) => [name, status.lanes[name]]);
  rows($('lanes'), lanes.map(([name, lane]) => ({
    key: name,
    cells: [`${LANES[name] ?? name} (${name})`, ...[lane.head, lane.sent, lane.stored, lane.safe, lane.waiting].map((number) => [count(number), 'number']),
      [lane.oldest_unsent_age_s === null ? '–' : duration(lane.oldest_unsent_age_s), 'number']],
  })));
  facts($('line-facts'), [
    ['Connections', count(uplink.connections)], ['Batches sent', count(uplink.batches_sent)], ['Batches sent again', count(uplink.batches_resent)],
    ['Bytes sent', bytes(uplink.bytes_sent)], ['Last fault of the line', uplink.last_error ?? 'none'],
  ]);
  facts($('journal-facts'), [
    ['Mode', words(status.mode)], ['Segments', count(disk.segments)], ['Syncs', count(disk.syncs)], ['Written to disk', bytes(disk.bytes_written)], ['Epoch', status.epoch ?? 'none yet'],
  ]);
  facts($('count-facts'), [
    ['Recorded since the start', count(status.recorded)], ['Sent twice by tills', count(status.duplicates)], ['Conflicts', count(status.conflicts)], ['Store and box', `${status.store_id} ${status.agent_id}`],
  ]);
}

const today = () => status.business_day_date;
const shownDay = () => chosenDay || today();

async function showDay() {
  const day = await ask(`/v1/days/${encodeURIComponent(shownDay())}`);
  if (day.business_day_date !== shownDay()) return;
  if (document.activeElement !== $('day')) $('day').value = day.business_day_date;
  mark($('day-today'), 'disabled', day.business_day_date === today());
  dayState = day.standing;
  const [symbol, text, tone] = close(day.standing);
  say($('close'), `${symbol} ${text}`);
  mark($('close'), 'class', `state ${tone}`);
  const declaredOf = (till, currency) => day.closes.findLast((close) => (close.workstation_id ?? null) === till)?.declared.find((sums) => sums.currency_code === currency);
  const standingOf = (till) => day.standings.find((one) => (one.workstation_id ?? null) === till)?.standing ?? 'open';
  const line = (till, name, currency, transactions, gross) => {
    const declared = declaredOf(till, currency);
    const [symbol, text, tone] = close(standingOf(till));
    return { key: `${name} ${currency}`, cells: [name, [count(transactions), 'number'], [`${gross} ${currency}`, 'number'], [declared ? `${declared.gross} ${currency}` : '–', 'number'], [`${symbol} ${text}`, `state ${tone}`]] };
  };
  const lines = day.currencies.flatMap((sums) => sums.tills.map((till) => line(till.workstation_id, `Till ${till.workstation_id}`, sums.currency_code, till.transactions, till.gross)));
  const whole = day.currencies.filter((sums) => sums.tills.length > 1 || declaredOf(null, sums.currency_code));
  lines.push(...whole.map((sums) => {
    const all = line(null, 'All tills', sums.currency_code, sums.transactions, sums.gross);
    if (!declaredOf(null, sums.currency_code)) all.cells[4] = [`${symbol} ${text}`, `state ${tone}`];
    return all;
  }));
  rows($('tills'), lines);
  mark($('tills').closest('table'), 'hidden', lines.length === 0);
  mark($('no-tills'), 'hidden', lines.length > 0);
}

function chooseDay(day) {
  chosenDay = day === today() ? null : day;
  const url = new URL(location.href);
  if (chosenDay) url.searchParams.set('day', chosenDay);
  else url.searchParams.delete('day');
  history.replaceState(null, '', url);
  showDay().catch(() => lookNow());
}

function showExceptions() {
  const open = exceptions.filter((one) => !resolved.has(one.id));
  open.sort((a, b) => seriousness(b.severity) - seriousness(a.severity) || b.age_s - a.age_s);
  const shown = [...open.slice(0, MATTERS_MAX), ...resolved.values()];
  const more = open.length > MATTERS_MAX ? `; the first ${MATTERS_MAX} are shown` : '';
  say($('matters-count'), open.length === 0 ? '✓ Nothing' : `${counted(open.length, 'open', 'open')}${more}`);
  list($('matters'), shown, (one) => one.id, (one) => {
    const button = make('button', { type: 'button', onclick: () => openResolve(one.id) }, 'Resolve…');
    return make('li', {}, make('span', {}), make('div', { class: 'text' }, make('p'), make('p', { class: 'small quiet' }), make('p', { class: 'done', hidden: true })), button);
  }, (li, one) => {
    const [symbol, text, tone] = severity(one.severity);
    const [badge, body, button] = li.children;
    const [sentence, about, done] = body.children;
    const isDone = resolved.has(one.id);
    say(badge, isDone ? '✓ Resolved' : `${symbol} ${text}`);
    mark(badge, 'class', `state ${isDone ? 'good' : tone}`);
    say(sentence, one.message);
    const record = one.identity ? known(one.identity) : `${one.lane} ${one.seq}`;
    say(about, [record, `for ${duration(one.age_s)}`, `for ${words(one.owner)} to settle`, one.state === 'acknowledged' ? `${one.changed_by} looks after it` : null, one.code].filter(Boolean).join(' · '));
    mark(done, 'hidden', !isDone);
    if (isDone) say(done, `${one.resolved_by}: ${one.reason}`);
    mark(button, 'hidden', isDone);
    mark(button, 'aria-label', `Resolve: ${one.message} ${record}`);
  });
}

let resolving = null;

function openResolve(id) {
  resolving = exceptions.find((one) => one.id === id);
  if (!resolving) return;
  say($('resolve-text'), resolving.message);
  $('resolve-by').value = sessionStorage.getItem('counterfoil.name') ?? '';
  $('resolve-reason').value = '';
  mark($('resolve-error'), 'hidden', true);
  $('resolve').showModal();
  ($('resolve-by').value ? $('resolve-reason') : $('resolve-by')).focus();
}

async function sendResolve() {
  const one = resolving;
  const [by, reason] = [$('resolve-by').value.trim(), $('resolve-reason').value.replaceAll(/\s+/g, ' ').trim()];
  $('resolve-send').disabled = true;
  mark($('resolve-error'), 'hidden', true);
  try {
    const answer = await ask(`/v1/exceptions/${encodeURIComponent(one.id)}/resolve`, { by, reason });
    sessionStorage.setItem('counterfoil.name', by);
    resolved.set(answer.id, answer);
    $('resolve').close();
    showExceptions();
    announce(`Resolved by ${answer.resolved_by}.`);
    ($('matters').querySelector('button:not([hidden])') ?? $('matters-title')).focus();
    seen = '';
    lookNow();
  } catch (error) {
    const text = error instanceof Refusal ? `Not resolved: ${error.message}` : 'No answer from the box, so nobody knows whether it was resolved. Please try again; resolving twice does no harm.';
    say($('resolve-error'), text);
    mark($('resolve-error'), 'hidden', false);
  }
  $('resolve-send').disabled = false;
}

async function look() {
  status = await ask('/v1/status');
  // The rest is asked for when something moved, or now and then.
  const now = [status.recorded, status.open_exceptions, status.conflicts, today()].join();
  if (now !== seen || Date.now() - seenAt > 10000) {
    exceptions = await ask('/v1/exceptions');
    await showDay();
    [seen, seenAt] = [now, Date.now()];
  }
  say($('name'), `Store ${status.store_id}`);
  document.title = `${matters().length === 0 ? '✓' : '!'} Store ${status.store_id} – Counterfoil`;
  showVerdict();
  showCards();
  showExceptions();
  showTechnical();
}

$('resolve').querySelector('form').addEventListener('submit', (event) => { event.preventDefault(); sendResolve(); });
$('resolve-cancel').addEventListener('click', () => $('resolve').close());
$('day').addEventListener('change', () => { if ($('day').value) chooseDay($('day').value); });
$('day-before').addEventListener('click', () => chooseDay(daysOn(shownDay(), -1)));
$('day-after').addEventListener('click', () => chooseDay(daysOn(shownDay(), 1)));
$('day-today').addEventListener('click', () => { chooseDay(today()); $('day').value = today(); });
const lookNow = live(2000, look, 'the box');
