//! Each promise of the sender alone; [`link`] drives it against the receiver.

use alloc::vec;

use super::*;
use crate::id::Epoch;
use crate::limits::RESEND_MS_MAX;
use crate::message::{GoneReason, NackReason};

const SESSION: SessionId = SessionId([5; 16]);
const HUB: SessionId = SessionId([6; 16]);
const EPOCH: Epoch = Epoch([1; 16]);
const TRADE: LaneKey = LaneKey { epoch: EPOCH, lane: Lane::Trade };
const STOCK: LaneKey = LaneKey { epoch: EPOCH, lane: Lane::Stock };

fn head(lane: Lane, first: u64, last: u64) -> LaneHead {
    LaneHead { lane, first: Seq(first), chain_before: None, last: Seq(last), chain: None, gone: vec![] }
}

fn heads(lanes: Vec<LaneHead>) -> Vec<EpochHeads> {
    vec![EpochHeads { epoch: EPOCH, parent: None, live: true, lanes }]
}

fn sender(lanes: Vec<LaneHead>) -> Sender {
    let mut sender = Sender::new(SESSION, "test".into(), 7, 0, Moment(0));
    sender.handle_heads(heads(lanes), Moment(0));
    sender
}

fn mark(key: LaneKey, stored: u64) -> Mark {
    Mark { key, stored: Seq(stored), safe: Seq(stored), ranges: vec![] }
}

fn welcome(sender: &mut Sender, hub_epoch: SessionId, marks: &[Mark], credit: u32, now: Moment) {
    let Some(Command::Hello(pages)) = sender.next_command(now) else { panic!("no hello") };
    for hello in pages {
        let welcome = Welcome {
            version: WireVersion::V1,
            session: hello.session,
            round: hello.round,
            hub_epoch,
            page: hello.page,
            marks: marks.to_vec(),
            window: WINDOW_SEQS_MAX,
            credit,
        };
        sender.handle_down(Down::Welcome(welcome), now);
    }
}

fn ack(marks: Vec<Mark>) -> Down {
    Down::Ack(Ack { session: SESSION, hub_epoch: HUB, marks, credit: 64 })
}

/// Carries out all commands; gives what was sent.
fn drain(sender: &mut Sender, last: u64, now: Moment) -> Vec<(LaneKey, SeqRange)> {
    let mut sent = vec![];
    while let Some(command) = sender.next_command(now) {
        if let Command::Send { first, records_max, .. } = command {
            let range = SeqRange { first: first.seq, last: first.seq.plus(records_max as u64 - 1).min(Seq(last)) };
            sender.handle_sent(first.lane_key(), range, 1_000, now);
            sent.push((first.lane_key(), range));
        }
    }
    sent
}

#[test]
fn nothing_is_sent_before_the_hub_named_its_mark_and_positions_go_first() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 10)]);
    let Some(Command::Hello(_)) = sender.next_command(Moment(0)) else { panic!("no hello") };
    assert_eq!(sender.next_command(Moment(0)), None);
    sender.handle_timeout(sender.poll_timeout());
    welcome(&mut sender, HUB, &[mark(TRADE, 3)], 64, Moment(6_000));
    assert_eq!(sender.next_command(Moment(6_000)), Some(Command::Positions));
    let Some(Command::Send { first, .. }) = sender.next_command(Moment(6_000)) else { panic!("no batch") };
    assert_eq!(first, RecordKey { epoch: EPOCH, lane: Lane::Trade, seq: Seq(4) });
}

#[test]
fn an_unanswered_hello_is_said_again() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 1)]);
    sender.next_command(Moment(0));
    let at = sender.poll_timeout();
    assert!(at > Moment(0) && at <= Moment(2 * HELLO_RETRY_MS));
    assert!(matches!(sender.next_command(at), Some(Command::Hello(_))));
}

#[test]
fn a_welcome_lowers_the_mark_and_an_ack_never_does() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 100)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 100)], 64, Moment(0));
    assert_eq!(drain(&mut sender, 100, Moment(0)), []);
    sender.handle_down(ack(vec![mark(TRADE, 40)]), Moment(1));
    assert_eq!(drain(&mut sender, 100, Moment(1)), [], "an old ack rewinds nothing");
    sender.handle_down(Down::HelloWanted { hub_epoch: HUB }, Moment(2));
    welcome(&mut sender, HUB, &[mark(TRADE, 40)], 64, Moment(3_000));
    let sent = drain(&mut sender, 100, Moment(3_000));
    assert_eq!(sent, [(TRADE, SeqRange { first: Seq(41), last: Seq(100) })]);
}

#[test]
fn an_ack_of_another_hub_epoch_moves_nothing_and_makes_it_say_hello() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 100)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 0)], 64, Moment(0));
    drain(&mut sender, 100, Moment(0));
    sender.take_marks();
    let other = Ack { session: SESSION, hub_epoch: SessionId([9; 16]), marks: vec![mark(TRADE, 100)], credit: 64 };
    sender.handle_down(Down::Ack(other), Moment(1));
    assert_eq!(sender.take_marks(), None);
    assert!(sender.poll_timeout() <= Moment(2_000));
    assert!(matches!(sender.next_command(Moment(2_000)), Some(Command::Hello(_))));
}

#[test]
fn a_changed_hub_epoch_makes_every_mark_unknown_until_welcomed() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 100), head(Lane::Stock, 1, 5)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 100), mark(STOCK, 5)], 64, Moment(0));
    assert_eq!(drain(&mut sender, 100, Moment(0)), []);
    sender.handle_down(Down::HelloWanted { hub_epoch: SessionId([9; 16]) }, Moment(10));
    assert_eq!(sender.take_marks(), Some(vec![]), "no mark of the old hub epoch may reclaim anything");
    welcome(&mut sender, SessionId([9; 16]), &[mark(TRADE, 90), mark(STOCK, 5)], 64, Moment(3_000));
    assert_eq!(drain(&mut sender, 100, Moment(3_000)), [(TRADE, SeqRange { first: Seq(91), last: Seq(100) })]);
}

#[test]
fn what_the_hub_asks_for_and_the_agent_gave_back_is_declared_gone() {
    let mut sender = sender(vec![head(Lane::Trade, 51, 60)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 20)], 64, Moment(0));
    let Some(Command::Hello(pages)) = sender.next_command(Moment(0)) else { panic!("no hello") };
    let gone = pages[0].epochs[0].lanes[0].gone[0];
    assert_eq!((gone.range, gone.reason), (SeqRange { first: Seq(21), last: Seq(50) }, GoneReason::Reclaimed));
    assert_eq!(drain(&mut sender, 60, Moment(0)), [(TRADE, SeqRange { first: Seq(51), last: Seq(60) })]);
}

#[test]
fn without_progress_it_sends_again_and_waits_longer_each_time() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 10)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 0)], 64, Moment(0));
    let mut now = Moment(0);
    let mut waits = vec![];
    assert_eq!(drain(&mut sender, 10, now).len(), 1);
    for _ in 0..5 {
        let at = sender.poll_timeout();
        assert_eq!(drain(&mut sender, 10, Moment(at.0 - 1)), []);
        sender.handle_timeout(at);
        assert!(sender.poll_timeout() > at, "a timer that fired must not stay due");
        assert_eq!(drain(&mut sender, 10, at).len(), 1);
        waits.push(at.since_ms(now));
        now = at;
    }
    assert!(waits[1] > waits[0] && waits[2] > waits[1] && waits[4] <= RESEND_MS_MAX + RESEND_MS_MIN);
    assert_eq!(sender.counters().resent, 5);
}

#[test]
fn the_credit_bounds_what_is_in_flight_and_lapses_to_one_not_to_none() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 100_000)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 0)], 3, Moment(0));
    assert_eq!(drain(&mut sender, 100_000, Moment(0)).len(), 3);
    sender.handle_down(
        Down::Ack(Ack { session: SESSION, hub_epoch: HUB, marks: vec![mark(TRADE, 1_536)], credit: 0 }),
        Moment(1),
    );
    assert_eq!(drain(&mut sender, 100_000, Moment(1)), []);
    assert_eq!(drain(&mut sender, 100_000, Moment(1 + CREDIT_LAPSE_MS)).len(), 1);
}

#[test]
fn a_batch_that_the_hub_cannot_read_is_halved_down_to_one_plain_record_and_blocks_no_other_lane() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 512), head(Lane::Stock, 1, 512)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 0), mark(STOCK, 0)], 64, Moment(0));
    let mut smallest = usize::MAX;
    let mut was_plain = false;
    let mut stock_sent = false;
    for _ in 0..200 {
        let Some(command) = sender.next_command(Moment(0)) else {
            break;
        };
        let Command::Send { first, records_max, plain } = command else {
            continue;
        };
        let range = SeqRange { first: first.seq, last: first.seq.plus(records_max as u64 - 1).min(Seq(512)) };
        sender.handle_sent(first.lane_key(), range, 1_000, Moment(0));
        if first.lane == Lane::Stock {
            stock_sent = true;
        } else if range.contains(Seq(1)) {
            smallest = smallest.min(records_max);
            was_plain |= plain;
            let nack = Nack { session: SESSION, first, reason: NackReason::Undecodable };
            sender.handle_down(Down::Nack(nack), Moment(0));
        }
    }
    assert_eq!((smallest, was_plain, stock_sent), (1, true, true));
}

#[test]
fn every_waiting_lane_gets_its_share() {
    let lanes = [Lane::Trade, Lane::Stock, Lane::Ops];
    let mut sender = sender(lanes.map(|lane| head(lane, 1, 1_000_000)).to_vec());
    let marks = lanes.map(|lane| mark(LaneKey { epoch: EPOCH, lane }, 0)).to_vec();
    welcome(&mut sender, HUB, &marks, 64, Moment(0));
    let sent = drain(&mut sender, 1_000_000, Moment(0));
    for lane in lanes {
        let share = sent.iter().filter(|(key, _)| key.lane == lane).count();
        assert!(share >= sent.len() / 16, "{lane} got {share} of {}", sent.len());
    }
}

#[test]
fn many_epochs_and_gaps_are_told_whole_on_several_pages() {
    let gone: Vec<Gone> = (0..150)
        .map(|index| Gone {
            range: SeqRange { first: Seq(index * 2 + 1), last: Seq(index * 2 + 1) },
            reason: GoneReason::Damaged,
            chain_after: None,
        })
        .collect();
    let mut epochs: Vec<EpochHeads> = (0..100_u8)
        .map(|index| EpochHeads {
            epoch: Epoch([index; 16]),
            parent: None,
            live: false,
            lanes: vec![head(Lane::Trade, 1, 400)],
        })
        .collect();
    epochs[3].lanes[0].gone.clone_from(&gone);
    let mut sender = Sender::new(SESSION, "test".into(), 7, 0, Moment(0));
    sender.handle_heads(epochs, Moment(0));
    let Some(Command::Hello(pages)) = sender.next_command(Moment(0)) else { panic!("no hello") };
    assert!(pages.iter().all(|page| page.epochs.len() <= HELLO_EPOCHS_MAX));
    let told: Vec<Gone> = pages
        .iter()
        .flat_map(|page| &page.epochs)
        .flat_map(|heads| &heads.lanes)
        .flat_map(|lane| lane.gone.clone())
        .collect();
    assert_eq!(told, gone);
    for index in 0..100_u8 {
        assert!(pages.iter().flat_map(|page| &page.epochs).any(|heads| heads.epoch == Epoch([index; 16])));
    }
}

#[test]
fn a_range_that_a_person_wants_is_sent_again_below_the_mark() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 100)]);
    welcome(&mut sender, HUB, &[mark(TRADE, 100)], 64, Moment(0));
    let range = SeqRange { first: Seq(10), last: Seq(12) };
    sender.handle_down(Down::RangeRequest { session: SESSION, key: TRADE, range }, Moment(1));
    assert_eq!(drain(&mut sender, 100, Moment(1)), [(TRADE, range)]);
}

mod edges;
mod link;
