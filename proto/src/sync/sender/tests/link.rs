//! Sender and receiver against each other over a link that loses, doubles and reorders, with a hub that is restored from a backup.

#![expect(clippy::cast_possible_truncation, reason = "lengths of lists that are made here")]

use alloc::vec;

use proptest::prelude::*;

use super::super::*;
use super::{HUB, SESSION, STOCK, TRADE, head, sender};
use crate::id::{Chain, Digest};
use crate::message::NackReason;
use crate::sync::receiver::{LaneState, Plan};

fn digest(seq: Seq) -> Digest {
    Digest::of(&seq.0.to_le_bytes())
}

/// A hub of one process, its answers and the agent's batches on a link that loses, doubles and reorders.
struct World {
    sender: Sender,
    hub: BTreeMap<LaneKey, (LaneState, BTreeMap<Seq, Digest>)>,
    up: Vec<(LaneKey, SeqRange)>,
    hellos: Vec<Hello>,
    down: Vec<Down>,
    now: Moment,
    random: u64,
    faults: bool,
    hub_epoch: SessionId,
}

impl World {
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn pick<T>(&mut self, from: fn(&mut Self) -> &mut Vec<T>) -> Option<T>
    where
        T: Clone,
    {
        let length = from(self).len() as u64;
        if length == 0 {
            return None;
        }
        let (at, fate) = if self.faults { (self.draw(length), self.draw(10)) } else { (0, 9) };
        match fate {
            0 => {
                from(self).remove(at as usize);
                None
            }
            1 => Some(from(self)[at as usize].clone()),
            _ => Some(from(self).remove(at as usize)),
        }
    }

    fn step(&mut self) {
        while let Some(command) = self.sender.next_command(self.now) {
            match command {
                Command::Hello(pages) => self.hellos.extend(pages),
                Command::Positions => {}
                Command::Prove(key) => {
                    let own = (1..=key.seq.0).map(|seq| (Seq(seq), digest(Seq(seq))));
                    let genesis = Chain::genesis(key.epoch, key.lane);
                    let chain = own.fold(genesis, |chain, (seq, digest)| chain.next(seq, digest));
                    self.sender.handle_chain(key, Some(chain), self.now);
                }
                Command::Send { first, records_max, .. } => {
                    let heads = &self.sender.epochs[0].lanes;
                    let last = heads.iter().find(|head| head.lane == first.lane).unwrap().last;
                    let end = first.seq.plus(records_max as u64 - 1).min(last);
                    let range = SeqRange { first: first.seq, last: end };
                    let digests: Vec<Digest> = (range.first.0..=range.last.0).map(|seq| digest(Seq(seq))).collect();
                    self.sender.handle_sent(first.lane_key(), range, 1_000, &digests, self.now);
                    self.up.push((first.lane_key(), range));
                }
            }
        }
        if let Some(hello) = self.pick(|world| &mut world.hellos) {
            self.welcome(&hello);
        }
        if let Some((key, range)) = self.pick(|world| &mut world.up) {
            self.receive(key, range);
        }
        if let Some(down) = self.pick(|world| &mut world.down) {
            self.sender.handle_down(down, self.now);
        }
        self.now = Moment(self.now.0 + 20 + self.draw(400));
        self.sender.handle_timeout(self.now);
    }

    fn welcome(&mut self, hello: &Hello) {
        let mut marks = vec![];
        for heads in &hello.epochs {
            for head in &heads.lanes {
                let key = LaneKey { epoch: heads.epoch, lane: head.lane };
                let (state, stored) = self.hub.entry(key).or_insert_with(|| (LaneState::new(key), BTreeMap::new()));
                state.hello(head, true);
                state.advance(|seq| stored.get(&seq).copied());
                marks.push(state.mark(key));
            }
        }
        self.down.push(Down::Welcome(Welcome {
            version: WireVersion::V1,
            session: hello.session,
            round: hello.round,
            hub_epoch: self.hub_epoch,
            page: hello.page,
            marks,
            window: WINDOW_SEQS_MAX,
            credit: 16,
        }));
    }

    fn receive(&mut self, key: LaneKey, range: SeqRange) {
        let (state, stored) = self.hub.entry(key).or_insert_with(|| (LaneState::new(key), BTreeMap::new()));
        if state.plan(range) == Plan::Ahead {
            let first = RecordKey { epoch: key.epoch, lane: key.lane, seq: range.first };
            self.down.push(Down::Nack(Nack { session: SESSION, first, reason: NackReason::Ahead }));
            return;
        }
        for seq in (range.first.0..=range.last.0).map(Seq) {
            stored.insert(seq, digest(seq));
        }
        state.note_stored(range);
        state.advance(|seq| stored.get(&seq).copied());
        let mark = state.mark(key);
        let ack = Ack { session: SESSION, hub_epoch: self.hub_epoch, marks: vec![mark], taken: vec![], credit: 16 };
        self.down.push(Down::Ack(ack));
    }

    fn is_whole(&self, last: u64) -> bool {
        [TRADE, STOCK].iter().all(|key| self.hub.get(key).is_some_and(|(state, _)| state.stored == Seq(last)))
            && self.sender.in_flight() == 0
            && self.sender.contested() == 0
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_link_does_everything_arrives_and_it_ends(random in any::<u64>(), restore_at in 0_usize..300) {
        let last = 3_000;
        let lanes = vec![head(Lane::Trade, 1, last), head(Lane::Stock, 1, last)];
        let mut world = World {
            sender: sender(lanes), hub: BTreeMap::new(), up: vec![], hellos: vec![], down: vec![],
            now: Moment(0), random, faults: true, hub_epoch: HUB,
        };
        let mut backup = BTreeMap::new();
        for step in 0..400 {
            if step == restore_at / 2 {
                backup = world.hub.clone();
            }
            if step == restore_at {
                world.hub = core::mem::take(&mut backup);
                world.hub_epoch = SessionId([77; 16]);
                world.down.push(Down::HelloWanted { hub_epoch: world.hub_epoch });
            }
            world.step();
        }
        world.faults = false;
        let mut steps = 0;
        while !world.is_whole(last) {
            steps += 1;
            prop_assert!(steps < 5_000, "no end: {:?}", world.sender);
            world.step();
        }
        for key in [TRADE, STOCK] {
            let (state, _) = &world.hub[&key];
            let chain = (1..=last).fold(Chain::genesis(key.epoch, key.lane), |chain, seq| chain.next(Seq(seq), digest(Seq(seq))));
            prop_assert_eq!(state.chain, Some(chain));
        }
    }
}
