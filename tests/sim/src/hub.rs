//! The hubs: several processes on one database and one shared subscription, polled by hand in an order that is drawn.
//!
//! Invariant: a process holds nothing but its futures, so killing one is dropping it, in the middle of whatever it did. What it says is
//! handed over at the end of the turn in which it said it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use counterfoil_hub::env::{self, Script};
use counterfoil_hub::ledger::{LaneCopy, Ledger, LedgerError, PageQuery, RecordsPage, SafeWhen, SqlLedger, read_copy};
use counterfoil_hub::mqtt::{Incoming, Outlet, QUEUE_MESSAGES_MAX};
use counterfoil_hub::receiver::{Counters, Receiver};
use counterfoil_proto::id::{Digest, RecordKey, Source};
use counterfoil_proto::message::Down;
use tokio::sync::{mpsc, watch};

use crate::books::{Books, SharedBooks, Witnessed};
use crate::database::SimDatabase;
use crate::random::Random;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Opened = Arc<Mutex<Option<Arc<dyn Ledger>>>>;

/// A running hub process.
struct Process {
    work: Task,
    incoming: mpsc::Sender<Incoming>,
    ledger: Opened,
}

/// A backup that was verified, with what the books had.
pub(crate) struct Backup {
    bytes: Vec<u8>,
    /// The last position that it has.
    position: u64,
    pub(crate) books: Books,
}

/// A record as a reader was served it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) position: u64,
    pub(crate) source: Source,
    pub(crate) key: RecordKey,
    pub(crate) digest: Digest,
}

/// What somebody downstream read, position by position.
#[derive(Debug, Default)]
pub(crate) struct Downstream {
    cursor: Option<counterfoil_hub::ledger::Cursor>,
    pub(crate) served: Vec<Served>,
    pub(crate) findings: Vec<String>,
}

/// All of them.
pub(crate) struct Hubs {
    pub(crate) database: SimDatabase,
    pub(crate) books: SharedBooks,
    pub(crate) safe_when: SafeWhen,
    pub(crate) backup: Option<Backup>,
    pub(crate) downstream: Arc<Mutex<Downstream>>,
    processes: Vec<Option<Process>>,
    jobs: Vec<Task>,
    down: mpsc::UnboundedReceiver<(Source, Down)>,
    way_down: mpsc::UnboundedSender<(Source, Down)>,
    random: Random,
    script: Script,
}

async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    std::future::poll_fn(|context| {
        let ended = [one.as_mut().poll(context).is_ready(), other.as_mut().poll(context).is_ready()];
        if ended.contains(&true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What a hub's program does from its start on.
async fn program(
    database: SimDatabase,
    books: SharedBooks,
    safe_when: SafeWhen,
    incoming: mpsc::Receiver<Incoming>,
    outlet: Outlet,
    opened: Opened,
) {
    let ledger = loop {
        match SqlLedger::open(Box::new(database.clone()), safe_when).await {
            Ok(ledger) => break ledger,
            Err(_) => env::pause(env::jittered(1_000)).await,
        }
    };
    let ledger: Arc<dyn Ledger> = Arc::new(Witnessed { ledger, books });
    if let Ok(mut place) = opened.lock() {
        *place = Some(Arc::clone(&ledger));
    }
    let (stored, wake) = watch::channel(0);
    let (posted, _last_position) = watch::channel(0);
    let (_stop, stopped) = watch::channel(false);
    let receiver = Receiver::new(Arc::clone(&ledger), outlet, Arc::new(Counters::default()), stored, stopped);
    both(receiver.run(incoming), counterfoil_hub::posting::run(ledger, wake, posted)).await;
}

/// Drives what needs nobody else to its end.
pub(crate) fn finish<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
    }
    panic!("something that needs nobody else does not end");
}

impl Hubs {
    /// `is_crowd`: their transactions let others go first between statements.
    pub(crate) fn new(seed: u64, count: usize, is_crowd: bool, safe_when: SafeWhen) -> Self {
        let mut random = Random::new(seed, "hubs");
        let (way_down, down) = mpsc::unbounded_channel();
        let yields = if is_crowd { random.between(300, 900) } else { 0 };
        let mut hubs = Self {
            database: SimDatabase::new(Random::new(seed, "database"), yields),
            books: SharedBooks::default(),
            safe_when,
            backup: None,
            downstream: Arc::default(),
            processes: Vec::new(),
            jobs: Vec::new(),
            down,
            way_down,
            random,
            script: Script::begin(seed),
        };
        for index in 0..count {
            hubs.processes.push(None);
            hubs.start(index);
        }
        hubs
    }

    pub(crate) const fn count(&self) -> usize {
        self.processes.len()
    }

    pub(crate) fn is_up(&self, index: usize) -> bool {
        self.processes.get(index).is_some_and(Option::is_some)
    }

    /// Starts a process that is not running.
    pub(crate) fn start(&mut self, index: usize) {
        let (incoming, arrivals) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let ledger = Opened::default();
        let outlet = Outlet::queue(self.way_down.clone());
        let work =
            program(self.database.clone(), self.books.clone(), self.safe_when, arrivals, outlet, Arc::clone(&ledger));
        self.processes[index] = Some(Process { work: Box::pin(work), incoming, ledger });
    }

    /// Kills a process, in the middle of whatever it does.
    pub(crate) fn kill(&mut self, index: usize) {
        self.processes[index] = None;
    }

    /// Hands a message to one process; which one, the broker's draw decides. Lost where none runs.
    pub(crate) fn deliver(&mut self, message: Incoming) {
        let up: Vec<usize> = (0..self.processes.len()).filter(|index| self.is_up(*index)).collect();
        if !up.is_empty() {
            let index = up[self.random.index(up.len())];
            self.deliver_to(index, message);
        }
    }

    pub(crate) fn deliver_to(&self, index: usize, message: Incoming) {
        if let Some(process) = &self.processes[index] {
            // A full queue drops: its sender notices by the missing acknowledgement.
            drop(process.incoming.try_send(message));
        }
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        let opened = |process: &Process| process.ledger.lock().ok().and_then(|ledger| ledger.clone());
        self.processes.iter().flatten().find_map(opened)
    }

    /// Lets every process work as far as it gets, and gives what they said and when to come again at the latest.
    pub(crate) fn poll(
        &mut self,
        now: counterfoil_proto::time::Moment,
        wall: counterfoil_proto::time::WallTime,
    ) -> (Vec<(Source, Down)>, Option<u64>) {
        self.script.set(now, wall);
        let mut context = Context::from_waker(Waker::noop());
        let turn = self.random.index(self.processes.len().max(1));
        let count = self.processes.len();
        for step in 0..count {
            let index = (turn + step) % count;
            if let Some(process) = &mut self.processes[index]
                && process.work.as_mut().poll(&mut context).is_ready()
            {
                self.processes[index] = None;
            }
        }
        self.jobs.retain_mut(|job| job.as_mut().poll(&mut context).is_pending());
        let mut said = Vec::new();
        while let Ok(message) = self.down.try_recv() {
            said.push(message);
        }
        let awaited = self.script.take_awaited().map(|moment| moment.0);
        let next = if self.database.take_awaited() { Some(now.0 + 1) } else { awaited };
        (said, next)
    }

    /// Takes a backup, reads it back, and says so to the ledger. Nothing while a transaction is open.
    pub(crate) fn back_up(&mut self) -> bool {
        let (Some(ledger), Some(bytes)) = (self.ledger(), self.database.backup()) else { return false };
        let marks = finish(read_copy(&SimDatabase::copy(&bytes))).expect("a copy is a ledger").1;
        let books = Books { findings: Vec::new(), ..self.books.get().clone() };
        let position = u64::try_from(self.database.count("SELECT MAX(next_position) - 1 FROM poster")).unwrap_or(0);
        self.backup = Some(Backup { bytes, position, books });
        if self.safe_when == SafeWhen::Confirmed {
            self.jobs.push(Box::pin(raise(ledger, marks)));
        }
        true
    }

    /// Sets the ledger back to its verified backup.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = &self.backup else { return false };
        self.database.restore(&backup.bytes);
        let mut books = self.books.get();
        let findings = std::mem::take(&mut books.findings);
        *books = Books { findings, ..backup.books.clone() };
        drop(books);
        // Who was raising `safe` to an older backup is gone too; it would say nothing wrong, but nothing new.
        self.jobs.clear();
        // Who restores says so downstream: a hub process that did nothing since the backup does not notice, and gives positions anew.
        if let Ok(mut downstream) = self.downstream.lock() {
            let position = backup.position;
            downstream.served.retain(|served| served.position <= position);
            downstream.cursor = None;
        }
        true
    }

    /// Somebody downstream reads on.
    pub(crate) fn read(&mut self) {
        if let Some(ledger) = self.ledger() {
            self.jobs.push(Box::pin(read(ledger, Arc::clone(&self.downstream))));
        }
    }

    /// Whether nothing waits for a position.
    pub(crate) fn is_posted(&self) -> bool {
        let waiting = "SELECT (SELECT COUNT(*) FROM late) + (SELECT COUNT(*) FROM streams s \
            LEFT JOIN posted p ON p.stream = s.stream WHERE s.stored > COALESCE(p.seq, 0))";
        self.database.count(waiting) == 0
    }

    /// Whether no transaction is open and nobody reads.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.database.backup().is_some()
    }

    /// A ledger over what is committed, for those who look at the end.
    pub(crate) fn final_ledger(&self) -> SqlLedger {
        let bytes = self.database.backup().expect("nothing is at work any more");
        let copy = SimDatabase::copy(&bytes);
        finish(SqlLedger::open(Box::new(copy), self.safe_when)).expect("the ledger opens")
    }
}

async fn raise(ledger: Arc<dyn Ledger>, lanes: Vec<LaneCopy>) {
    // Where that fails the next backup says it again.
    drop(ledger.raise_safe(&lanes).await);
}

async fn read(ledger: Arc<dyn Ledger>, downstream: Arc<Mutex<Downstream>>) {
    let after = downstream.lock().map_or(None, |downstream| downstream.cursor);
    let page = ledger.records(&PageQuery { after, limit: 1_000, ..PageQuery::default() }).await;
    // A ledger that was set back says from where on to read again.
    let again = match &page {
        Err(LedgerError::Cursor { restore_point }) => ledger.cursor(Some(*restore_point)).await.ok(),
        Ok(_) | Err(_) => None,
    };
    let Ok(mut downstream) = downstream.lock() else { return };
    if downstream.cursor.map(|cursor| cursor.position) != after.map(|cursor| cursor.position) {
        // Another read was faster.
        return;
    }
    if let Ok(page) = page {
        downstream.take(page);
    } else if let Some(cursor) = again {
        downstream.served.retain(|served| served.position <= cursor.position);
        downstream.cursor = Some(cursor);
    }
}

impl Downstream {
    fn take(&mut self, page: RecordsPage) {
        for entry in page.entries {
            let known = self.served.iter().find(|served| served.position == entry.position);
            let last = self.served.last().map_or(0, |served| served.position);
            if let Some(known) = known {
                if (known.key, known.digest) != (entry.key, entry.record_digest) {
                    self.findings.push(format!("positions: {} was served with another record before", entry.position));
                }
                continue;
            }
            if entry.position != last + 1 {
                self.findings.push(format!("positions: {} was served after {last}", entry.position));
            }
            let (source, key, digest) = (entry.source, entry.key, entry.record_digest);
            self.served.push(Served { position: entry.position, source, key, digest });
        }
        self.cursor = Some(page.next);
    }
}
