//! A store without the hub for a month, and its return: the agent's own process on a real directory, under a scripted clock.
//!
//! Invariant: the journal is a real one with segments of the ordinary kind; only syncs are left out, since nobody cuts the power here.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use counterfoil::answer::Outcome;
use counterfoil::journal::disk::{DiskFile, DiskLock, Listed};
use counterfoil::journal::{Disk, JournalConfig, OsDisk};
use counterfoil_hub::ledger::{Ledger, PageQuery, PostingBounds, SafeWhen};
use counterfoil_hub::mqtt::Incoming;
use counterfoil_proto::codec;
use counterfoil_proto::record::Record;
use counterfoil_proto::time::{Moment, WallTime};
use counterfoil_proto::topic::Up;

use crate::hub::{Hubs, finish};
use crate::random::Random;
use crate::store::{BEGINNING, StoreBox};
use crate::till::Tills;

/// Days without the hub.
pub const DAYS: u64 = 30;
/// Sales of the till in a day.
pub const SALES_A_DAY: u64 = 700;

const DAY_MS: u64 = 86_400_000;
/// Between two ticks of the agent; in reality half a second, which changes nothing but the time that the test takes.
const TICK_MS: u64 = 600_000;

/// A directory whose syncs do nothing.
#[derive(Debug)]
struct Unsynced(OsDisk);

impl Disk for Unsynced {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(name).map(|file| Box::new(UnsyncedFile(file)) as Box<dyn DiskFile>)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(name).map(|file| Box::new(UnsyncedFile(file)) as Box<dyn DiskFile>)
    }
    fn open_read(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open_read(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(name)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
    fn write_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.write_aside(name, bytes)
    }
}

#[derive(Debug)]
struct UnsyncedFile(Box<dyn DiskFile>);

impl DiskFile for UnsyncedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.0.preallocate(bytes)
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.truncate(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
}

/// How it came back.
#[derive(Clone, Copy, Debug)]
pub struct Back {
    /// Whether stock on hand was said before the first batch.
    pub positions_first: bool,
    /// Batches that it took.
    pub batches: u64,
    /// Documents at the hub.
    pub documents: u64,
    /// Documents that a till was told are safe, and that the hub does not have.
    pub missing: u64,
}

/// The store.
pub struct Offline {
    store: StoreBox,
    tills: Tills,
    till: usize,
    random: Random,
    now: u64,
    told: BTreeSet<(String, [u8; 32])>,
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Offline")
            .field("now", &self.now)
            .field("told", &self.told.len())
            .finish_non_exhaustive()
    }
}

impl Offline {
    /// A new box with its journal in `directory`.
    ///
    /// # Panics
    /// Where the box cannot do that: the simulation has found something.
    pub fn begin(directory: &Path) -> Self {
        let limits = JournalConfig { segment_bytes: 1024 * 1024, free_bytes_min: 0, ..JournalConfig::default() };
        let mut store = StoreBox::new(30, "S1", "box0", limits);
        let disk = OsDisk::new(directory).expect("a directory for the journal");
        store.start_on(0, Arc::new(Unsynced(disk))).expect("a new box starts");
        let mut tills = Tills::default();
        let till = tills.open("T0".to_owned(), 0, DAY_MS / SALES_A_DAY);
        Self { store, tills, till, random: Random::new(30, "offline"), now: 0, told: BTreeSet::new() }
    }

    /// Documents that the till was told are safe.
    pub fn told(&self) -> u64 {
        self.told.len() as u64
    }

    /// A day of selling, with the agent's timers going on.
    ///
    /// # Panics
    /// Where the box cannot do that: the simulation has found something.
    pub fn sell_for_a_day(&mut self, day: u64) {
        let (source, context) = (self.store.source.clone(), self.store.config.context());
        let mut tick_at = self.now;
        for _ in 0..SALES_A_DAY {
            self.now += DAY_MS / SALES_A_DAY;
            self.store.set_time(self.now);
            let document = self.tills.make(self.till, &source, &context, &mut self.random);
            let prepared = self.tills.prepared(document, &context);
            let process = self.store.process.as_mut().expect("it runs");
            process.submit(document, prepared);
            if tick_at <= self.now {
                process.waiting.push(counterfoil::agent::Request::Tick);
                tick_at = self.now + TICK_MS;
            }
            let (answers, served) = process.serve();
            served.expect("the disk is well");
            for (document, answer) in answers {
                let Some(Ok(Outcome::Recorded(_))) = answer else { continue };
                let document = &self.tills.documents[document];
                self.told.insert((document.identity.clone(), document.digest.0));
            }
            // The till itself keeps nothing: its memory is not the agent's.
            self.tills.forget();
        }
        self.now = self.now.max(day * DAY_MS);
    }

    /// The hub is there again: everything is sent, and compared.
    ///
    /// # Panics
    /// Where the box cannot do that: the simulation has found something.
    pub fn come_back(&mut self) -> Back {
        let mut hubs = Hubs::new(30, 1, false, SafeWhen::Stored);
        let source = self.store.source.clone();
        let mut back = Back { positions_first: false, batches: 0, documents: 0, missing: 0 };
        let mut seen_positions = false;
        let process = self.store.process.as_mut().expect("it runs");
        let mut pending = process.connected(1, Moment(self.now)).map(|said| said.messages).unwrap_or_default();
        for _ in 0..20_000 {
            self.now += 10;
            self.store.set_time(self.now);
            let process = self.store.process.as_mut().expect("it runs");
            pending.extend(process.pump(Moment(self.now)).expect("the disk is well").messages);
            for (up, payload) in pending.drain(..) {
                seen_positions |= up == Up::Positions;
                if matches!(up, Up::Batch(_)) {
                    back.positions_first |= back.batches == 0 && seen_positions;
                    back.batches += 1;
                }
                let payload = bytes::Bytes::from(payload);
                hubs.deliver(Incoming { source: source.clone(), up, payload, is_retained: false, room: None });
            }
            let wall = WallTime(BEGINNING.saturating_add(i64::try_from(self.now).unwrap_or(0)));
            let (said, _) = hubs.poll(Moment(self.now), wall);
            for (_, down) in said {
                process.heard(&codec::encode(&down).expect("what a hub says fits"), Moment(self.now));
            }
            let (_, served) = process.serve();
            served.expect("the disk is well");
            let is_sent = process.reader.lanes().iter().all(|view| {
                let lane = |lane| counterfoil_proto::id::LaneKey { epoch: view.epoch, lane };
                view.lanes.iter().all(|head| hubs.books.get().covers(&source, lane(head.lane), head.last))
            });
            if is_sent && hubs.is_posted() {
                break;
            }
        }
        self.compare(&hubs, &mut back);
        back
    }

    fn compare(&self, hubs: &Hubs, back: &mut Back) {
        let ledger = hubs.final_ledger();
        let bounds = PostingBounds { records_max: 5_000, bytes_max: 16 * 1024 * 1024, opaque: false };
        while finish(ledger.post(bounds)).expect("posting goes on").more {}
        let mut there = BTreeSet::new();
        let mut after = None;
        loop {
            let query = PageQuery { after, limit: 5_000, ..PageQuery::default() };
            let page = finish(ledger.records(&query)).expect("records can be read");
            for entry in page.entries {
                let record = Record::decode(&entry.bytes).expect("a record of ours");
                if let Some(identity) = record.envelope.identity {
                    back.documents += 1;
                    there.insert((identity, record.envelope.content_digest.0));
                }
            }
            after = Some(page.next);
            if page.at_end {
                break;
            }
        }
        back.missing = self.told.difference(&there).count() as u64;
    }
}
