//! The ledger: what the hub has, and the only thing that it must not lose.
//!
//! Two steps. **Intake** stores records as they came, with the watermark of their lane, in one transaction under the lock of the
//! lane's row; only then may anybody acknowledge them. **Posting** gives what is stored gapless positions, one process at a
//! time under the lock of the poster's row, and folds it into totals and exceptions in the same transaction. So nothing
//! ever appears at or below a position that a reader has seen, and a record that nobody understands holds up nothing.
//!
//! Invariant: any number of hub processes share a ledger and keep nothing that they cannot lose. Each counts its transactions
//! in it; a ledger that counts less than its process remembers was restored from a backup, gets a new hub epoch, and every agent
//! is asked for a hello.
//!
//! [`Ledger`] is what receiver, poster and API ask for; [`SqlLedger`] answers it over a [`sql::Database`].

use std::fmt::Debug;

use counterfoil_proto::id::{LaneKey, SessionId, Source};
use counterfoil_proto::message::{Batch, Hello, Mark, Positions, Presence};
use counterfoil_proto::record::flag::Change;
use counterfoil_proto::time::WallTime;

mod audit;
mod days;
mod delays;
mod desk;
mod fleet;
mod identities;
mod intake;
mod lookup;
mod outbox;
pub mod postgres;
mod posting;
mod read;
mod replays;
mod returns;
pub mod schema;
mod seals;
pub mod sql;
pub mod sqlite;
#[cfg(test)]
mod tests;
mod ties;
mod view;
mod watch;

#[cfg(test)]
pub(crate) use tests::{database as tests_place, postgres_url};

pub use audit::{AuditView, Deed};
pub use desk::read_copy;
pub use identities::{Enrolment, IdentityView, Issued, RevokedCertificate, Role as IdentityRole};
pub use outbox::Letter;
pub use replays::{DueReplay, ReplayPart, ReplayQuery, ReplayView};
pub(crate) use seals::Seal;
pub use sql::{Database, Work};
pub use view::{
    Ageing, AgentView, By, Cursor, DayDocument, DayView, DelayQuery, DelayView, EntryView, ExceptionFilter,
    ExceptionView, FleetStore, FleetView, Gauges, Ground, LaneView, Lookup, LookupQuery, OpenOfCode, PageQuery,
    RecordsPage, ReturnView, ReturnsQuery, SealView, StockView, TillNumbers, TotalsRow, Waits,
};
pub use watch::Beat;

use watch::Watch;

/// What the ledger could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be reached, or is in trouble of its own: try again later.
    #[error("The ledger cannot be reached: {why}")]
    Unreachable {
        /// In its own words, without values.
        why: String,
    },
    /// Another transaction was in the way: try again.
    #[error("The ledger is busy: {why}")]
    Busy {
        /// In its own words, without values.
        why: String,
    },
    /// A key was there that should not have been: look before writing.
    #[error("The ledger has a row that was to be new: {why}")]
    Doubled {
        /// In its own words, without values.
        why: String,
    },
    /// It does not take a statement.
    #[error("The ledger refused a statement: {why}")]
    Refused {
        /// In its own words, without values.
        why: String,
    },
    /// A row is not what it should be.
    #[error("A row of the ledger is not of the expected form; was it changed by hand?")]
    Shape,
    /// It was made by a later version of this software.
    #[error("The ledger has schema version {version}, which this software does not know; install the newer hub")]
    Newer {
        /// Found in it.
        version: i64,
    },
    /// It counts less than this process remembers: somebody restored a backup.
    #[error("The ledger went back: it was restored from a backup")]
    WentBack {
        /// The hub epoch under which this was found.
        under: SessionId,
    },
    /// Nothing can be read at a position: the ledger went back, or the position is of another one.
    #[error("The cursor is of a state of the ledger that is gone")]
    Cursor {
        /// Up to here positions are still what they were.
        restore_point: u64,
    },
}

/// When a record counts as safe from a loss of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SafeWhen {
    /// As soon as it is stored.
    Stored,
    /// When a restored copy was seen to hold it.
    Confirmed,
}

/// A batch as it came, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it.
    pub source: Source,
    /// What.
    pub batch: Batch,
}

/// What became of arrivals that were taken in.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The hub epoch in which they were committed.
    pub hub_epoch: SessionId,
    /// The session that the ledger knows of each agent.
    pub sessions: Vec<(Source, Option<SessionId>)>,
    /// Where each lane stands after the commit.
    pub marks: Vec<(Source, Mark)>,
    /// Which arrivals, by their index, lie too far ahead and were not taken.
    pub ahead: Vec<usize>,
    /// Records that are new.
    pub stored: u64,
    /// Records that were there already.
    pub duplicates: u64,
    /// Records whose key another one has.
    pub forks: u64,
}

/// A lane as a copy of the ledger holds it.
#[derive(Clone, Debug)]
pub struct LaneCopy {
    /// Whose.
    pub source: Source,
    /// Where it stands.
    pub mark: Mark,
    /// Records kept beside others under one number.
    pub forks: u64,
}

/// What answers a page of a hello.
#[derive(Clone, Debug)]
pub struct Welcomed {
    /// See [`Taken::hub_epoch`].
    pub hub_epoch: SessionId,
    /// A mark for each lane of the page.
    pub marks: Vec<Mark>,
}

/// What one round of posting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// Records that got a position.
    pub records: u64,
    /// The last position that was given, by whomever.
    pub last_position: u64,
    /// Whether more waits.
    pub more: bool,
    /// Whether another process is at it.
    pub elsewhere: bool,
}

/// How posting goes about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostingBounds {
    /// Records at once.
    pub records_max: usize,
    /// Stored bytes at once, unless one record is larger.
    pub bytes_max: usize,
    /// Whether to take records as unreadable without looking: the way past one that the ledger does not take the facts of.
    pub opaque: bool,
}

/// What the hub asks of its ledger.
pub trait Ledger: Debug + Send + Sync {
    /// Stores arrivals and moves their watermarks, in one transaction.
    fn take<'a>(&'a self, arrivals: &'a [Arrival]) -> Work<'a, Taken>;
    /// Keeps bytes that do not decode, for a person to look at; bounded.
    fn reject<'a>(&'a self, source: &'a Source, key: Option<LaneKey>, reason: &'a str, bytes: &'a [u8])
    -> Work<'a, ()>;
    /// Takes in a page of a hello.
    fn hello<'a>(&'a self, source: &'a Source, hello: &'a Hello) -> Work<'a, Welcomed>;
    /// Notes presence; gives the session of the agent's last hello.
    fn presence<'a>(&'a self, source: &'a Source, presence: &'a Presence) -> Work<'a, Option<SessionId>>;
    /// Keeps a part of a stock snapshot; applies it when it is whole and newer.
    fn positions<'a>(&'a self, source: &'a Source, part: &'a Positions) -> Work<'a, ()>;
    /// Gives positions to what is stored.
    fn post(&self, bounds: PostingBounds) -> Work<'_, Posted>;
    /// Where lanes stand, as of now.
    fn marks<'a>(&'a self, lanes: &'a [(Source, LaneKey)]) -> Work<'a, Vec<(Source, Option<SessionId>, Mark)>>;
    /// The hub epoch as this process knows it.
    fn hub_epoch(&self) -> SessionId;
    /// Looks whether the ledger went back.
    fn beat(&self) -> Work<'_, Beat>;
    /// After [`LedgerError::WentBack`]: gives the ledger a new hub epoch, unless it has one already.
    fn come_back(&self, under: SessionId) -> Work<'_, SessionId>;
    /// Every agent that ever said something.
    fn agents(&self) -> Work<'_, Vec<Source>>;
    /// Raises `safe` to what a restored copy holds.
    fn raise_safe<'a>(&'a self, copy: &'a [LaneCopy]) -> Work<'a, u64>;
    /// Every lane of all agents.
    fn all_lanes(&self) -> Work<'_, (SessionId, Vec<LaneCopy>)>;
    /// The stores' agents and lanes; of one store, or of all.
    fn stores<'a>(&'a self, store_id: Option<&'a str>) -> Work<'a, Vec<AgentView>>;
    /// A line for each store, ages as of `now`.
    fn fleet(&self, now: WallTime) -> Work<'_, FleetView>;
    /// The stores of which anything was posted for a business day.
    fn stores_of_day<'a>(&'a self, business_day: &'a str) -> Work<'a, Vec<String>>;
    /// Records by position.
    fn records<'a>(&'a self, query: &'a PageQuery) -> Work<'a, RecordsPage>;
    /// Records by what they are known as, with the exceptions about them.
    fn lookup<'a>(&'a self, query: &'a LookupQuery) -> Work<'a, Lookup>;
    /// Lines that gave goods back.
    fn returns<'a>(&'a self, query: &'a ReturnsQuery) -> Work<'a, Vec<ReturnView>>;
    /// Totals of a store and a business day.
    fn totals<'a>(&'a self, store_id: &'a str, business_day: &'a str) -> Work<'a, Vec<TotalsRow>>;
    /// What a store's day is reconciled from.
    fn day<'a>(&'a self, store_id: &'a str, business_day: &'a str) -> Work<'a, DayView>;
    /// Orders of replays whose agents are online and were not asked yet.
    fn due_replays(&self) -> Work<'_, Vec<DueReplay>>;
    /// The agent was asked for what that order says.
    fn note_asked(&self, number: u64) -> Work<'_, ()>;
    /// How long documents took.
    fn delays<'a>(&'a self, query: &'a DelayQuery) -> Work<'a, Vec<DelayView>>;
    /// Exceptions.
    fn exceptions<'a>(&'a self, filter: &'a ExceptionFilter) -> Work<'a, Vec<ExceptionView>>;
    /// Says what somebody did about an exception, with its entry in the trail; `None` where it is not known. Who and why are for people.
    fn change_exception<'a>(
        &'a self,
        id: &'a str,
        change: Change,
        by_and_why: (&'a str, &'a str),
        deed: &'a Deed,
    ) -> Work<'a, Option<ExceptionView>>;
    /// Notes in the trail what no single transaction did: what was refused, and why, or what is done in many.
    fn note_alone<'a>(&'a self, deed: &'a Deed, outcome: &'a str) -> Work<'a, ()>;
    /// The trail before an entry's number, the newest first.
    fn audit(&self, before: Option<u64>, limit: usize) -> Work<'_, Vec<AuditView>>;
    /// The applied stock snapshots of a store.
    fn stock<'a>(&'a self, store_id: &'a str) -> Work<'a, Vec<StockView>>;
    /// Counts for metrics and readiness.
    fn gauges(&self) -> Work<'_, Gauges>;
    /// What waits in the ledger, and since when.
    fn waits(&self) -> Work<'_, Waits>;
    /// The cursor at a position, or at the last that was given.
    fn cursor(&self, position: Option<u64>) -> Work<'_, Cursor>;
}

/// The ledger in an SQL database.
#[derive(Debug)]
pub struct SqlLedger {
    database: Box<dyn Database>,
    safe_when: SafeWhen,
    watch: Watch,
}

impl SqlLedger {
    /// Opens the ledger: brings its schema up to date and signs this process in.
    pub async fn open(database: Box<dyn Database>, safe_when: SafeWhen) -> Result<Self, LedgerError> {
        database.migrate().await?;
        let watch = Watch::sign_in(&*database).await?;
        Ok(Self { database, safe_when, watch })
    }

    /// What kind of database it is, for people.
    pub fn kind(&self) -> &'static str {
        self.database.name()
    }
}
