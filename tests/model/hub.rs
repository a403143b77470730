//! The hub: the real receiver and lineage over a ledger of sets, in one step what the SQL ledger does in one transaction.
//!
//! Invariant: everything that the hub knows is in [`Ledger`], so that a backup of it is a backup of all.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil_proto::id::{Digest, LaneKey, RecordKey, Seq, SeqRange, SessionId};
use counterfoil_proto::limits::WINDOW_SEQS_MAX;
use counterfoil_proto::message::{Ack, Down, Hello, Mark, Nack, NackReason, Taken, Welcome, WireVersion};
use counterfoil_proto::sync::lineage::{Lineage, LineageIncident};
use counterfoil_proto::sync::receiver::{Incident, LaneState, Plan, Verdict};

use crate::agent::Batch;
use crate::canon::Canon;

/// Batches that an agent may have in flight.
const CREDIT: u32 = 4;

/// What a person is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Flag {
    Fork(RecordKey),
    Gone(LaneKey, SeqRange),
    ChainMismatch(LaneKey),
    AgentBehind(LaneKey),
    Clone,
    Rollback,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ledger {
    lanes: BTreeMap<LaneKey, Canon<LaneState>>,
    /// The records under each key in the order in which they were stored.
    pub(crate) records: BTreeMap<RecordKey, Vec<Digest>>,
    lineage: Canon<Lineage>,
    session: Option<SessionId>,
    pub(crate) flags: BTreeSet<Flag>,
}

/// The hub and its newest backup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hub {
    pub(crate) ledger: Ledger,
    pub(crate) backup: Option<Ledger>,
    /// Changes when the ledger goes back.
    incarnation: u8,
}

impl Hub {
    pub(crate) fn new() -> Self {
        let ledger = Ledger {
            lanes: BTreeMap::new(),
            records: BTreeMap::new(),
            lineage: Canon::of_lineage(Lineage::default()),
            session: None,
            flags: BTreeSet::new(),
        };
        Self { ledger, backup: None, incarnation: 1 }
    }

    fn hub_epoch(&self) -> SessionId {
        SessionId([self.incarnation; 16])
    }

    fn lane(&self, key: LaneKey) -> LaneState {
        self.ledger.lanes.get(&key).map_or_else(|| LaneState::new(key), |state| (**state).clone())
    }

    /// Everything up to here is stored or gone, on each lane.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (LaneKey, Seq)> + '_ {
        self.ledger.lanes.iter().map(|(key, state)| (*key, state.stored))
    }

    /// Advances a lane and puts it back; says where it stands.
    fn settle(&mut self, key: LaneKey, mut state: LaneState, mut incidents: Vec<Incident>) -> Mark {
        let records = &self.ledger.records;
        incidents.extend(state.advance(|seq| {
            records.get(&RecordKey { epoch: key.epoch, lane: key.lane, seq }).and_then(|stored| stored.first()).copied()
        }));
        self.ledger.flags.extend(incidents.into_iter().map(|incident| match incident {
            Incident::Gone(gone) => Flag::Gone(key, gone.range),
            Incident::ChainMismatch { .. } => Flag::ChainMismatch(key),
            Incident::AgentBehind { .. } => Flag::AgentBehind(key),
        }));
        let mark = state.mark(key);
        self.ledger.lanes.insert(key, Canon::of(state));
        mark
    }

    pub(crate) fn hello(&mut self, hello: &Hello) -> Down {
        self.ledger.session = Some(hello.session);
        let mut lineage = (*self.ledger.lineage).clone();
        let incidents = lineage.hello(&hello.epochs, hello.page == 0);
        self.ledger.lineage = Canon::of_lineage(lineage);
        self.ledger.flags.extend(incidents.into_iter().map(|incident| match incident {
            LineageIncident::Clone { .. } => Flag::Clone,
            LineageIncident::Rollback { .. } => Flag::Rollback,
        }));
        let mut marks = Vec::new();
        for heads in &hello.epochs {
            for head in &heads.lanes {
                let key = LaneKey { epoch: heads.epoch, lane: head.lane };
                let mut state = self.lane(key);
                let incidents = state.hello(head, heads.live);
                marks.push(self.settle(key, state, incidents));
            }
        }
        Down::Welcome(Welcome {
            version: WireVersion::V1,
            session: hello.session,
            round: hello.round,
            hub_epoch: self.hub_epoch(),
            page: hello.page,
            marks,
            window: WINDOW_SEQS_MAX,
            credit: CREDIT,
        })
    }

    pub(crate) fn batch(&mut self, batch: &Batch) -> Vec<Down> {
        let (key, range) = (batch.first.lane_key(), batch.range());
        let mut state = self.lane(key);
        if state.plan(range) == Plan::Ahead {
            let nack = Nack { session: batch.session, first: batch.first, reason: NackReason::Ahead };
            return vec![Down::Nack(nack), Down::HelloWanted { hub_epoch: self.hub_epoch() }];
        }
        for (seq, digest) in (range.first.0..).map(Seq).zip(&batch.records) {
            let record = RecordKey { epoch: key.epoch, lane: key.lane, seq };
            let existing = self.ledger.records.entry(record).or_default();
            match state.judge(seq, *digest, existing) {
                Verdict::Duplicate => continue,
                Verdict::Fork => {
                    self.ledger.flags.insert(Flag::Fork(record));
                    state.note_late(seq);
                }
                Verdict::Fill | Verdict::New => {}
            }
            existing.push(*digest);
        }
        state.note_stored(range);
        let mark = self.settle(key, state, Vec::new());
        let mut down = Vec::new();
        if self.ledger.session != Some(batch.session) {
            down.push(Down::HelloWanted { hub_epoch: self.hub_epoch() });
        }
        if let Some(session) = self.ledger.session {
            let taken = Taken { key, range, content: Digest::over(&batch.records) };
            let taken = (session == batch.session).then_some(taken).into_iter().collect();
            let hub_epoch = self.hub_epoch();
            down.push(Down::Ack(Ack { session, hub_epoch, marks: vec![mark], taken, credit: CREDIT }));
        }
        down
    }

    /// A backup is taken and tried: what it holds is safe from now on. The agent hears of it with the next mark.
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.ledger.clone());
        for state in self.ledger.lanes.values_mut() {
            let mut safer = (**state).clone();
            safer.safe = safer.stored;
            *state = Canon::of(safer);
        }
    }

    /// Whether it went back to a backup that knew less.
    pub(crate) fn has_gone_back(&self) -> bool {
        self.incarnation > 1
    }

    /// The ledger goes back to the newest backup.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.clone() else { return false };
        self.ledger = backup;
        self.incarnation += 1;
        true
    }
}
