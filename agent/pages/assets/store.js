// One store in depth: its boxes and lanes, its day, what is open.

const LANES_MAX = 12;
const OPEN_MAX = 100;
/** As the hub has it: a hello is due every ten minutes. */
const SILENT_AFTER_S = 900;
const isSilent = (agent) => agent.presence !== 'online' || !agent.last_word_at || secondsSince(agent.last_word_at) > SILENT_AFTER_S;

function startStore() {
  const id = decodeURIComponent(location.pathname.split('/')[2]);
  const of = encodeURIComponent(id);
  let day = new URLSearchParams(location.search).get('day') ?? new Date().toISOString().slice(0, 10);
  mark($('back'), 'href', `/${location.search}`);
  say($('name'), `Store ${id}`);
  document.title = `Store ${id} – Counterfoil`;

  function showVerdict(line, store) {
    const state = line ? stateOf(line) : 'unknown';
    const [symbol, , tone] = STORES[state];
    mark($('verdict'), 'class', `verdict fades ${tone}`);
    say($('verdict-symbol'), symbol);
    const titles = {
      bad: line?.errors_open ? `${counted(line.errors_open, 'serious exception is', 'serious exceptions are')} open` : 'Two boxes run under one name',
      unknown: 'Silent: nobody knows what this store sells',
      behind: `${count(line?.lag ?? 0)} records are known of and not here`,
      good: 'Everything of this store is here',
    };
    say($('verdict-title'), titles[state]);
    const lag = !line || line.lag === null ? `Missing: unknown${store.lag ? `, ${counted(store.lag, 'record', 'records')} at its last word` : ''}` : line.lag === 0 ? 'Nothing is missing' : `${counted(line.lag, 'record is', 'records are')} missing${line.lag_s === null ? '' : `; whole up to ${duration(line.lag_s)} ago`}`;
    say($('verdict-text'), [line?.region && `Region ${line.region}`, lag, line && `heard ${heardText(line)}`, line && `${counted(line.records, 'record', 'records')} here, ${count(line.duplicates)} sent again`].filter(Boolean).join(' · '));
  }

  function showBoxes(agents) {
    list($('boxes'), agents, (agent) => agent.agent_id, () => make('div', {}, make('h3'), make('dl', { class: 'facts' })), (box, agent) => {
      say(box.children[0], agent.agent_id);
      const online = !isSilent(agent) ? ['✓ Online', 'good'] : agent.presence === 'offline' ? ['? Offline', 'blank'] : ['? Silent', 'blank'];
      facts(box.children[1], [
        ['Line', online], ['Last word', agent.last_word_at ? `${duration(secondsSince(agent.last_word_at))} ago` : 'never'], ['Version', agent.software ?? 'unknown'], ['Clock', agent.clock ?? 'unknown'],
        ['One name, two boxes', agent.suspended ? ['✕ yes', 'bad'] : null], ['Missing', isSilent(agent) ? 'unknown' : count(agent.lag)], ['Open exceptions', count(agent.exceptions_open)],
      ]);
    });
    const lanes = agents.flatMap((agent) => agent.lanes.map((lane) => ({ ...lane, agent: agent.agent_id, lag: isSilent(agent) && lane.lag === 0 ? null : lane.lag })));
    lanes.sort((a, b) => (b.lag > 0) - (a.lag > 0) || b.last_word_at.localeCompare(a.last_word_at));
    say($('lanes-count'), lanes.length > LANES_MAX ? `${LANES_MAX} of ${count(lanes.length)}` : '');
    rows($('lanes'), lanes.slice(0, LANES_MAX).map((lane) => ({
      key: lane.agent + lane.epoch + lane.lane,
      cells: [lane.lane, [`${lane.agent} ${lane.epoch.slice(0, 8)}`, 'mono'], ...[lane.head, lane.stored, lane.safe, lane.lag, lane.duplicates, lane.forks].map((number) => [number === null ? 'unknown' : count(number), 'number']), [`${duration(secondsSince(lane.last_word_at))} ago`, 'number']],
    })));
  }

  function showDay(found) {
    if (document.activeElement !== $('day')) $('day').value = day;
    const [symbol, text, tone] = close(found.status);
    say($('close'), `${symbol} ${text}`);
    mark($('close'), 'class', `state ${tone}`);
    const reasons = (till) => [
      ...(till.differences ?? []).map((one) => `${words(one.what).replace('/', ' ')}: declared ${one.declared}, counted ${one.counted}`),
      ...(till.missing_numbers ?? []).map((gap) => `missing ${gap.first === gap.last ? `number ${gap.first}` : `numbers ${gap.first} to ${gap.last}`}`),
      till.late?.length ? `${count(till.late.length)} came after the close` : null, till.doubled?.length ? `${count(till.doubled.length)} doubled` : null, till.conflicts?.length ? `${counted(till.conflicts.length, 'conflict', 'conflicts')}` : null,
    ].filter(Boolean).join('; ') || '–';
    const line = (name, till) => {
      const [symbol, text, tone] = close(till.status);
      const sums = (list) => list.map((one) => `${one.gross} ${one.currency_code}`).join(', ') || '–';
      const receipts = till.counted.reduce((sum, one) => sum + one.transactions, 0);
      return { key: name, cells: [name, [count(receipts), 'number'], [sums(till.counted), 'number'], [sums(till.declared), 'number'], [`${symbol} ${text}`, `state ${tone}`], reasons(till)] };
    };
    const lines = [...(found.store ? [line('All tills', found.store)] : []), ...found.tills.map((till) => line(`Till ${till.workstation_id}`, till))];
    rows($('tills'), lines);
    mark($('tills').closest('table'), 'hidden', lines.length === 0);
    mark($('no-tills'), 'hidden', lines.length > 0);
  }

  function showExceptions({ exceptions }) {
    exceptions.sort((a, b) => seriousness(b.severity) - seriousness(a.severity) || b.age_s - a.age_s);
    say($('exceptions-count'), exceptions.length === 0 ? '✓ None' : `${count(exceptions.length)} open${exceptions.length > OPEN_MAX ? `; the first ${OPEN_MAX} are shown` : ''}`);
    list($('matters'), exceptions.slice(0, OPEN_MAX), (one) => one.id, () => make('li', {}, make('span'), make('div', { class: 'text' }, make('p'), make('p', { class: 'small quiet' }))), (li, one) => {
      const [symbol, text, tone] = severity(one.severity);
      say(li.children[0], `${symbol} ${text}`);
      mark(li.children[0], 'class', `state ${tone}`);
      say(li.children[1].children[0], one.message);
      say(li.children[1].children[1], [one.detail, `for ${duration(one.age_s)}`, `for ${words(one.owner)} to settle`, one.state === 'open' ? null : words(one.state), `${one.agent_id} ${one.lane} ${one.seq}`, one.code].filter(Boolean).join(' · '));
    });
  }

  async function look() {
    const [fleet, store, found, open, acknowledged] = await Promise.all([
      ask('/v1/fleet'), ask(`/v1/stores/${of}`), ask(`/v1/reconciliation?store=${of}&business_day=${encodeURIComponent(day)}`),
      ask(`/v1/exceptions?store=${of}&state=open`), ask(`/v1/exceptions?store=${of}&state=acknowledged`),
    ]);
    showVerdict(fleet.stores.find((line) => line.store_id === id), store);
    showDay(found);
    showExceptions({ exceptions: [...open.exceptions, ...acknowledged.exceptions] });
    showBoxes(store.agents);
  }
  const again = live(5000, look, 'the hub');
  const choose = (to) => {
    day = to;
    const url = new URL(location.href);
    url.searchParams.set('day', day);
    history.replaceState(null, '', url);
    mark($('back'), 'href', `/${url.search}`);
    $('day').value = day;
    again();
  };
  $('day').addEventListener('change', () => { if ($('day').value) choose($('day').value); });
  $('day-before').addEventListener('click', () => choose(daysOn(day, -1)));
  $('day-after').addEventListener('click', () => choose(daysOn(day, 1)));
}

if (document.body.dataset.page === 'store') startStore();
