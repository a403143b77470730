//! A box: a journal of sets, and the real sender that drains it.
//!
//! Invariant: whatever the sender asks for is done at once; what it says goes to the network as bytes. A process that starts begins a new
//! session, and a new epoch with its first record.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil_proto::codec;
use counterfoil_proto::id::{Chain, Digest, Epoch, Lane, LaneKey, RecordKey, Seq, SeqRange, SessionId};
use counterfoil_proto::message::{Down, EpochHeads, LaneHead, Parent, ParentLane};
use counterfoil_proto::sync::sender::{Command, Sender};
use counterfoil_proto::time::Moment;

use crate::canon::Canon;

/// Records of a batch: one, so that the network reorders records.
const BATCH_RECORDS: u64 = 1;

/// Records under way to the hub.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Batch {
    pub(crate) session: SessionId,
    pub(crate) first: RecordKey,
    pub(crate) records: Vec<Digest>,
}

impl Batch {
    pub(crate) fn range(&self) -> SeqRange {
        SeqRange { first: self.first.seq, last: self.first.seq.plus(self.records.len() as u64 - 1) }
    }
}

/// What a box says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Up {
    /// An encoded hello.
    Hello(Vec<u8>),
    Batch(Batch),
}

/// An epoch in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OwnEpoch {
    epoch: Epoch,
    parent: Option<(Epoch, Seq, Chain)>,
    /// How many were given back.
    floor: Seq,
    /// All records, those that were given back included: the chain needs them.
    records: Vec<Digest>,
}

impl OwnEpoch {
    fn key(&self) -> LaneKey {
        LaneKey { epoch: self.epoch, lane: Lane::Trade }
    }

    fn last(&self) -> Seq {
        Seq(self.records.len() as u64)
    }

    fn chain(&self, last: Seq) -> Chain {
        let records = (1..=last.0).map(Seq).zip(&self.records);
        records.fold(Chain::genesis(self.epoch, Lane::Trade), |chain, (seq, digest)| chain.next(seq, *digest))
    }

    fn heads(&self, live: bool) -> EpochHeads {
        let lane = LaneHead {
            lane: Lane::Trade,
            first: self.floor.next(),
            chain_before: Some(self.chain(self.floor)),
            last: self.last(),
            chain: Some(self.chain(self.last())),
            gone: Vec::new(),
        };
        let parent = self.parent.map(|(epoch, last, chain)| Parent {
            epoch,
            lanes: vec![ParentLane { lane: Lane::Trade, last, chain: Some(chain) }],
        });
        EpochHeads { epoch: self.epoch, parent, live, lanes: vec![lane] }
    }
}

/// What is on the disk of a box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Image {
    epochs: Vec<OwnEpoch>,
}

impl Image {
    /// Records that can still be read.
    pub(crate) fn records(&self) -> impl Iterator<Item = (RecordKey, Digest)> + '_ {
        self.epochs.iter().flat_map(|own| {
            let all = (1..).map(Seq).zip(&own.records);
            all.filter(|(seq, _)| *seq > own.floor)
                .map(|(seq, digest)| (RecordKey { epoch: own.epoch, lane: Lane::Trade, seq }, *digest))
        })
    }

    /// Records that were given back.
    pub(crate) fn given_back(&self) -> impl Iterator<Item = (RecordKey, Digest)> + '_ {
        self.epochs.iter().flat_map(|own| {
            let all = (1..).map(Seq).zip(&own.records);
            all.filter(|(seq, _)| *seq <= own.floor)
                .map(|(seq, digest)| (RecordKey { epoch: own.epoch, lane: Lane::Trade, seq }, *digest))
        })
    }
}

/// A running box.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AgentBox {
    pub(crate) image: Image,
    live: Option<Epoch>,
    session: SessionId,
    sender: Canon<Sender>,
    /// What the hub called safe in this session.
    safe: BTreeMap<LaneKey, Seq>,
}

/// The network upwards: nothing is taken out, so that everything may come late, again, in any order, or never.
pub(crate) type Uplink = BTreeSet<Up>;

impl AgentBox {
    /// A process that starts on an image. `name` is used for nothing else.
    pub(crate) fn start(image: Image, name: u8, now: u64, up: &mut Uplink) -> Self {
        let session = SessionId([name; 16]);
        let sender = Sender::new(session, String::new(), 1, 0, Moment(now));
        let mut started =
            Self { image, live: None, session, sender: Canon::of_sender(sender, now), safe: BTreeMap::new() };
        started.drive(now, up, |_| {});
        started
    }

    /// A connection is lost and made again: a new session of the same process.
    pub(crate) fn reconnect(&mut self, name: u8, now: u64, up: &mut Uplink) {
        let live = self.live;
        let image = std::mem::take(&mut self.image);
        *self = Self::start(image, name, now, up);
        self.live = live;
        self.drive(now, up, |_| {});
    }

    /// A till is told that its record is safe. `name` names the epoch that begins where none lives.
    pub(crate) fn accept(&mut self, digest: Digest, name: u8, now: u64, up: &mut Uplink) -> RecordKey {
        if self.live.is_none() {
            let epoch = Epoch([name; 16]);
            let parent = self.image.epochs.last().map(|own| (own.epoch, own.last(), own.chain(own.last())));
            self.image.epochs.push(OwnEpoch { epoch, parent, floor: Seq::NONE, records: Vec::new() });
            self.live = Some(epoch);
        }
        let own = self.image.epochs.last_mut().unwrap();
        own.records.push(digest);
        let key = RecordKey { epoch: own.epoch, lane: Lane::Trade, seq: own.last() };
        self.drive(now, up, |_| {});
        key
    }

    pub(crate) fn hear(&mut self, down: Down, now: u64, up: &mut Uplink) {
        self.drive(now, up, |sender| sender.handle_down(down, Moment(now)));
    }

    pub(crate) fn time_passes(&mut self, now: u64, up: &mut Uplink) {
        self.drive(now, up, |sender| sender.handle_timeout(Moment(now)));
    }

    /// Gives back what the hub called safe; whether there was anything.
    pub(crate) fn reclaim(&mut self, now: u64, up: &mut Uplink) -> bool {
        let mut any = false;
        for own in &mut self.image.epochs {
            let floor = self.safe.get(&own.key()).copied().unwrap_or_default().min(own.last());
            any |= floor > own.floor;
            own.floor = own.floor.max(floor);
        }
        self.drive(now, up, |_| {});
        any
    }

    /// Tells the sender how far the journal reaches and what happened, and does what it wants.
    fn drive(&mut self, now: u64, up: &mut Uplink, event: impl FnOnce(&mut Sender)) {
        let mut sender = (*self.sender).clone();
        let heads = self.image.epochs.iter().map(|own| own.heads(self.live == Some(own.epoch))).collect();
        sender.handle_heads(heads, Moment(now));
        event(&mut sender);
        while let Some(command) = sender.next_command(Moment(now)) {
            match command {
                Command::Hello(pages) => {
                    up.extend(pages.iter().map(|page| Up::Hello(codec::encode(page).unwrap())));
                }
                Command::Positions => {}
                Command::Prove(key) => {
                    let own = self.image.epochs.iter().find(|own| own.epoch == key.epoch);
                    sender.handle_chain(key, own.map(|own| own.chain(key.seq)), Moment(now));
                }
                Command::Send { first, records_max, .. } => {
                    let batch = self.read(first, records_max as u64);
                    sender.handle_sent(first.lane_key(), batch.range(), 1, &batch.records, Moment(now));
                    up.insert(Up::Batch(batch));
                }
            }
        }
        if let Some(marks) = sender.take_marks() {
            self.safe = marks.into_iter().map(|mark| (mark.key, mark.safe)).collect();
        }
        self.sender = Canon::of_sender(sender, now);
    }

    fn read(&self, first: RecordKey, records_max: u64) -> Batch {
        let own = self.image.epochs.iter().find(|own| own.epoch == first.epoch).unwrap();
        assert!(first.seq > own.floor && first.seq <= own.last(), "only what is there is asked for");
        let rest = (1..).map(Seq).zip(&own.records).filter(|(seq, _)| *seq >= first.seq).map(|(_, digest)| *digest);
        let records = rest.take(usize::try_from(records_max.min(BATCH_RECORDS)).unwrap()).collect();
        Batch { session: self.session, first, records }
    }
}
