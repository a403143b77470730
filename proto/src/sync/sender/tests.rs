//! Each promise of the sender alone; [`link`] drives it against the receiver.

use alloc::vec;

use super::*;
use crate::id::Epoch;
use crate::limits::RESEND_MS_MAX;
use crate::message::{Gone, GoneReason, NackReason};

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
    Mark { key, stored: Seq(stored), safe: Seq(stored), ranges: vec![], absent: vec![], chain: None }
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
    Down::Ack(Ack { session: SESSION, hub_epoch: HUB, marks, taken: vec![], credit: 64 })
}

/// Carries out all commands; gives what was sent.
fn drain(sender: &mut Sender, last: u64, now: Moment) -> Vec<(LaneKey, SeqRange)> {
    let mut sent = vec![];
    while let Some(command) = sender.next_command(now) {
        if let Command::Send { first, records_max, .. } = command {
            let range = SeqRange { first: first.seq, last: first.seq.plus(records_max as u64 - 1).min(Seq(last)) };
            sender.handle_sent(first.lane_key(), range, 1_000, &[], now);
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
    let other = Ack {
        session: SESSION,
        hub_epoch: SessionId([9; 16]),
        marks: vec![mark(TRADE, 100)],
        taken: vec![],
        credit: 64,
    };
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

/// Digests of the records that box `name` gave these numbers.
fn digests_of(name: u8, range: SeqRange) -> Vec<Digest> {
    (range.first.0..=range.last.0).map(|seq| Digest::of(&[name, u8::try_from(seq).unwrap()])).collect()
}

fn chain_of(name: u8, last: u64) -> Chain {
    let range = SeqRange { first: Seq::FIRST, last: Seq(last) };
    let records = (1..=last).map(Seq).zip(digests_of(name, range));
    records.fold(Chain::genesis(EPOCH, Lane::Trade), |chain, (seq, digest)| chain.next(seq, digest))
}

fn chained(name: u8, stored: u64) -> Mark {
    Mark { chain: Some(chain_of(name, stored)), ..mark(TRADE, stored) }
}

/// A box that wrote `last` records, and was welcomed with a mark over the records of box `name`.
fn welcomed_over(name: u8, stored: u64, last: u64) -> Sender {
    let own =
        LaneHead { chain_before: Some(chain_of(1, 0)), chain: Some(chain_of(1, last)), ..head(Lane::Trade, 1, last) };
    let mut sender = sender(vec![own]);
    welcome(&mut sender, HUB, &[chained(name, stored)], 64, Moment(0));
    sender
}

/// Sends what there is; gives the ranges.
fn send_own(sender: &mut Sender, last: u64) -> Vec<SeqRange> {
    let mut sent = vec![];
    while let Some(command) = sender.next_command(Moment(1)) {
        let Command::Send { first, .. } = command else { continue };
        let range = SeqRange { first: first.seq, last: Seq(last) };
        sender.handle_sent(TRADE, range, 1_000, &digests_of(1, range), Moment(1));
        sent.push(range);
    }
    sent
}

fn taken(range: SeqRange, name: u8, mark: Mark) -> Down {
    let taken = vec![Taken { key: TRADE, range, content: Digest::over(&digests_of(name, range)) }];
    Down::Ack(Ack { session: SESSION, hub_epoch: HUB, marks: vec![mark], taken, credit: 64 })
}

#[test]
fn a_mark_over_own_records_counts_once_its_chain_was_looked_up() {
    let mut sender = welcomed_over(1, 4, 9);
    let asked = RecordKey { epoch: EPOCH, lane: Lane::Trade, seq: Seq(4) };
    assert_eq!(sender.next_command(Moment(1)), Some(Command::Prove(asked)));
    assert_eq!(sender.take_marks(), Some(vec![]), "nothing counts before");
    sender.handle_chain(asked, Some(chain_of(1, 4)), Moment(1));
    assert_eq!(sender.take_marks(), Some(vec![chained(1, 4)]));
    assert_eq!(send_own(&mut sender, 9), [SeqRange { first: Seq(5), last: Seq(9) }]);
    sender.handle_down(ack(vec![chained(1, 9)]), Moment(2));
    assert_eq!(
        (sender.contested(), sender.take_marks()),
        (0, Some(vec![chained(1, 9)])),
        "the head's chain is at hand"
    );
}

#[test]
fn a_mark_over_anothers_records_makes_it_send_all_again_and_only_the_word_for_the_very_batch_counts() {
    for stored in [9, 12] {
        let mut sender = welcomed_over(2, stored, 9);
        let all = SeqRange { first: Seq(1), last: Seq(9) };
        assert_eq!(send_own(&mut sender, 9), [all]);
        let told = |sender: &mut Sender| sender.take_marks().map(|marks| (marks[0].stored, marks[0].safe));
        assert_eq!((sender.contested(), told(&mut sender)), (1, Some((Seq(0), Seq(0)))));
        sender.handle_down(taken(all, 2, chained(2, stored)), Moment(2));
        assert_eq!(told(&mut sender), None, "the other box's batch");
        sender.handle_down(taken(all, 1, Mark { safe: Seq(0), ..chained(2, stored) }), Moment(2));
        assert_eq!(told(&mut sender), Some((Seq(9), Seq(0))));
        assert_eq!(send_own(&mut sender, 9), []);
        // A fork lowers `safe`; once it is back at `stored`, what is kept beside is safe too.
        sender.handle_down(Down::HelloWanted { hub_epoch: HUB }, Moment(3));
        welcome(&mut sender, HUB, &[Mark { safe: Seq(3), ..chained(2, stored) }], 64, Moment(3_000));
        assert_eq!(told(&mut sender), Some((Seq(9), Seq(0))));
        sender.handle_down(Down::HelloWanted { hub_epoch: HUB }, Moment(3_001));
        welcome(&mut sender, HUB, &[chained(2, stored)], 64, Moment(6_000));
        assert_eq!(told(&mut sender), Some((Seq(9), Seq(9))));
    }
}

#[test]
fn what_a_double_called_gone_is_sent_again_by_the_box_that_has_it() {
    let absent = |first, last| vec![SeqRange { first: Seq(first), last: Seq(last) }];
    let with = |absent| Mark { absent, ..chained(1, 9) };
    let mut sender = welcomed_over(1, 0, 9);
    send_own(&mut sender, 9);
    sender.handle_down(ack(vec![with(absent(3, 4))]), Moment(2));
    let all = SeqRange { first: Seq(1), last: Seq(9) };
    assert_eq!((sender.contested(), send_own(&mut sender, 9)), (1, vec![all]));
    sender.handle_down(taken(all, 1, Mark { safe: Seq(2), ..chained(1, 9) }), Moment(3));
    assert_eq!(sender.take_marks().map(|marks| (marks[0].stored, marks[0].safe)), Some((Seq(9), Seq(0))));
    sender.handle_down(Down::HelloWanted { hub_epoch: HUB }, Moment(4));
    welcome(&mut sender, HUB, &[chained(1, 9)], 64, Moment(3_000));
    assert_eq!((sender.contested(), send_own(&mut sender, 9)), (0, vec![]), "it has come");

    let gone = Gone { range: absent(3, 4)[0], reason: GoneReason::Damaged, chain_before: None, chain_after: None };
    let own = LaneHead { chain: Some(chain_of(1, 9)), gone: vec![gone], ..head(Lane::Trade, 1, 9) };
    let contested = |own: &LaneHead, absent| {
        let mut sender = super::tests::sender(vec![own.clone()]);
        let Some(Command::Prove(before)) = sender.next_command(Moment(0)) else { panic!("not asked") };
        sender.handle_chain(before, Some(chain_of(1, 2)), Moment(0));
        welcome(&mut sender, HUB, &[with(absent)], 64, Moment(0));
        sender.contested()
    };
    assert_eq!(contested(&own, absent(3, 4)), 0, "neither has it");
    assert_eq!(contested(&own, absent(3, 5)), 1);
    assert_eq!(contested(&own, absent(10, 11)), 0, "not written yet");
    let later = LaneHead { first: Seq(5), ..own };
    assert_eq!(contested(&later, absent(1, 4)), 0, "what was given back cannot be sent");
}

#[test]
fn a_contested_lane_goes_over_what_it_lost() {
    let mut sender = welcomed_over(2, 9, 9);
    let range = SeqRange { first: Seq(1), last: Seq(9) };
    let chain_after = Some(chain_of(1, 9));
    let gone = Gone { range, reason: GoneReason::Damaged, chain_before: None, chain_after };
    let own = LaneHead { chain: Some(chain_of(1, 9)), gone: vec![gone], ..head(Lane::Trade, 1, 9) };
    sender.take_marks();
    sender.handle_heads(heads(vec![own]), Moment(1));
    assert_eq!((sender.contested(), sender.take_marks().map(|marks| marks[0].stored)), (1, Some(Seq(9))));
}

#[test]
fn what_was_proven_before_another_box_wrote_is_not_sent_again() {
    let mut sender = welcomed_over(1, 0, 5);
    send_own(&mut sender, 5);
    sender.handle_down(ack(vec![chained(1, 5)]), Moment(2));
    let own = LaneHead { chain: Some(chain_of(1, 7)), ..head(Lane::Trade, 1, 7) };
    sender.handle_heads(heads(vec![own]), Moment(3));
    send_own(&mut sender, 7);
    sender.take_marks();
    sender.handle_down(ack(vec![chained(2, 7)]), Moment(4));
    assert_eq!(sender.take_marks().map(|marks| marks[0].stored), Some(Seq(5)), "what the hub has of others is told");
    assert_eq!((sender.contested(), send_own(&mut sender, 7)), (1, vec![SeqRange { first: Seq(6), last: Seq(7) }]));
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
        Down::Ack(Ack { session: SESSION, hub_epoch: HUB, marks: vec![mark(TRADE, 1_536)], taken: vec![], credit: 0 }),
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
        sender.handle_sent(first.lane_key(), range, 1_000, &[], Moment(0));
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
            chain_before: None,
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
    let mut looked_up = 0;
    let pages = loop {
        match sender.next_command(Moment(0)) {
            Some(Command::Prove(key)) => sender.handle_chain(key, None, Moment(0)),
            Some(Command::Hello(pages)) => break pages,
            other => panic!("{other:?}"),
        }
        looked_up += 1;
    };
    assert!((1..=64).contains(&looked_up), "{looked_up} look-ups for many gaps");
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
