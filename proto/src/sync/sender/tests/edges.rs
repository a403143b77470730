//! Where the sender's decisions turn: each test stands at both sides of a bound. Most were written for a mutant that lived.

use super::*;
use alloc::collections::BTreeSet;

fn welcomed(lanes: Vec<LaneHead>, marks: &[Mark]) -> Sender {
    let mut sender = sender(lanes);
    welcome(&mut sender, HUB, marks, 64, Moment(0));
    assert_eq!(sender.next_command(Moment(0)), Some(Command::Positions));
    sender
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

fn says_hello(sender: &mut Sender, now: Moment) -> bool {
    loop {
        match sender.next_command(now) {
            Some(Command::Prove(key)) => sender.handle_chain(key, None, now),
            Some(Command::Hello(_)) => return true,
            Some(Command::Positions | Command::Send { .. }) | None => return false,
        }
    }
}

#[test]
fn it_tells_its_session_whether_it_is_welcomed_and_what_was_sent() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 10)]);
    assert_eq!((sender.session(), sender.is_welcomed(), sender.sent(TRADE)), (SESSION, false, Seq::NONE));
    welcome(&mut sender, HUB, &[mark(TRADE, 0)], 64, Moment(0));
    drain(&mut sender, 10, Moment(0));
    assert_eq!((sender.is_welcomed(), sender.sent(TRADE), sender.sent(STOCK)), (true, Seq(10), Seq::NONE));
}

#[test]
fn heads_are_told_when_a_lane_or_a_gap_is_new_and_not_when_they_grow() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 10)], &[mark(TRADE, 10)]);
    sender.handle_heads(heads(vec![head(Lane::Trade, 1, 11)]), Moment(1));
    assert!(!says_hello(&mut sender, Moment(1)), "records are no news");
    let gone = Gone { range: range(4, 5), reason: GoneReason::Damaged, chain_before: None, chain_after: None };
    let with_gap = LaneHead { gone: vec![gone], ..head(Lane::Trade, 1, 11) };
    sender.handle_heads(heads(vec![with_gap.clone()]), Moment(2));
    assert!(says_hello(&mut sender, Moment(2)));
    sender.handle_heads(heads(vec![with_gap.clone()]), Moment(3));
    assert!(!says_hello(&mut sender, Moment(3)), "the gap was told");
    sender.handle_heads(heads(vec![with_gap, head(Lane::Stock, 1, 1)]), Moment(4));
    assert!(says_hello(&mut sender, Moment(4)));
}

#[test]
fn only_the_first_welcome_of_this_round_and_session_counts() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 100)], &[mark(TRADE, 100)]);
    sender.take_marks();
    let lower = |session, round| Welcome {
        version: WireVersion::V1,
        session,
        round,
        hub_epoch: HUB,
        page: 0,
        marks: vec![mark(TRADE, 40)],
        window: WINDOW_SEQS_MAX,
        credit: 64,
    };
    sender.handle_down(Down::Welcome(lower(SESSION, 1)), Moment(1));
    assert_eq!(sender.take_marks(), None, "it was answered already");
    sender.handle_down(Down::HelloWanted { hub_epoch: HUB }, Moment(2));
    assert!(says_hello(&mut sender, Moment(3_000)));
    for (session, round) in [(SESSION, 1), (SessionId([8; 16]), 2), (SessionId([8; 16]), 1)] {
        sender.handle_down(Down::Welcome(lower(session, round)), Moment(3_000));
        assert_eq!(sender.take_marks(), None, "it answers another hello");
    }
    sender.handle_down(Down::Welcome(lower(SESSION, 2)), Moment(3_000));
    assert_eq!(sender.take_marks(), Some(vec![mark(TRADE, 40)]));
}

#[test]
fn a_welcome_makes_other_lanes_unknown_only_when_the_hub_changed() {
    let lanes = || vec![head(Lane::Trade, 1, 10), head(Lane::Stock, 1, 10)];
    for (hub_epoch, known) in [(HUB, vec![mark(TRADE, 5), mark(STOCK, 7)]), (SessionId([9; 16]), vec![mark(TRADE, 5)])]
    {
        let mut sender = welcomed(lanes(), &[mark(TRADE, 5), mark(STOCK, 7)]);
        sender.handle_heads(heads(vec![head(Lane::Trade, 1, 10), head(Lane::Stock, 1, 10)]), Moment(1));
        sender.take_marks();
        let at = Moment(2 * HELLO_INTERVAL_MS);
        welcome(&mut sender, hub_epoch, &[mark(TRADE, 5)], 64, at);
        assert_eq!(sender.take_marks(), Some(known));
    }
}

#[test]
fn a_lane_that_cannot_be_read_waits_for_its_timer() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 10)], &[mark(TRADE, 0)]);
    assert!(matches!(sender.next_command(Moment(0)), Some(Command::Send { .. })));
    sender.handle_unreadable(TRADE, Moment(0));
    assert_eq!(sender.next_command(Moment(0)), None);
    let at = sender.poll_timeout();
    sender.handle_timeout(at);
    assert!(matches!(sender.next_command(at), Some(Command::Send { first, .. }) if first.seq == Seq(1)));
}

#[test]
fn a_batch_is_halved_and_only_a_single_record_goes_plain() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 512)], &[mark(TRADE, 0)]);
    let mut sizes = vec![];
    while let Some(Command::Send { first, records_max, plain }) = sender.next_command(Moment(0)) {
        assert_eq!(plain, records_max == 1);
        sizes.push(records_max);
        sender.handle_sent(TRADE, range(1, records_max as u64), 1_000, &[], Moment(0));
        sender.handle_down(Down::Nack(Nack { session: SESSION, first, reason: NackReason::TooLarge }), Moment(0));
    }
    assert_eq!(sizes.last(), Some(&1));
    assert!(sizes.windows(2).all(|pair| pair[1] == pair[0] / 2), "{sizes:?}");
}

#[test]
fn bytes_in_flight_are_bounded_and_one_batch_always_goes() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 100_000)], &[mark(TRADE, 0)]);
    for (seq, bytes) in [(1, WINDOW_BYTES_MAX - 1), (2, 1)] {
        assert!(matches!(sender.next_command(Moment(0)), Some(Command::Send { .. })));
        sender.handle_sent(TRADE, range(seq, seq), bytes, &[], Moment(0));
    }
    assert_eq!(sender.next_command(Moment(0)), None);
}

#[test]
fn few_records_are_sent_at_once_and_then_gathered() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 0)], &[mark(TRADE, 0)]);
    let mut sent_at = vec![];
    for last in 1..=68 {
        sender.handle_heads(heads(vec![head(Lane::Trade, 1, last)]), Moment(0));
        if !drain(&mut sender, last, Moment(0)).is_empty() {
            sent_at.push(last);
        }
    }
    assert_eq!(sent_at, [1, 2, 3, 4, 68], "four small batches, then a full one of 64");
}

#[test]
fn a_lane_without_progress_keeps_one_batch_in_flight() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 100_000)], &[mark(TRADE, 0)]);
    assert!(drain(&mut sender, 100_000, Moment(0)).len() > 1);
    let at = sender.poll_timeout();
    sender.handle_timeout(at);
    assert_eq!(drain(&mut sender, 100_000, at).len(), 1);
    sender.handle_down(ack(vec![mark(TRADE, 1)]), at);
    assert!(drain(&mut sender, 100_000, at).len() > 1, "it moves again");
}

#[test]
fn an_equal_mark_resends_nothing_and_declares_nothing_gone() {
    let mut sender = welcomed(vec![head(Lane::Trade, 51, 60)], &[mark(TRADE, 50)]);
    assert_eq!(drain(&mut sender, 60, Moment(0)), [(TRADE, range(51, 60))]);
    let at = Moment(2 * HELLO_INTERVAL_MS);
    let Some(Command::Hello(pages)) = sender.next_command(at) else { panic!("no hello") };
    assert_eq!(pages[0].epochs[0].lanes[0].gone, [], "the hub has everything below");
    let again = Moment(at.0 + 2 * HELLO_INTERVAL_MS);
    welcome(&mut sender, HUB, &[mark(TRADE, 50)], 64, again);
    assert_eq!(sender.in_flight(), 1);
    assert_eq!(drain(&mut sender, 60, again), []);
}

#[test]
fn an_ack_tells_the_marks_when_stored_or_safe_rose() {
    let at = |stored, safe| Mark { safe: Seq(safe), ..mark(TRADE, stored) };
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 100)], &[at(10, 5)]);
    assert_eq!(sender.take_marks(), Some(vec![at(10, 5)]));
    for (said, told) in
        [(at(10, 5), None), (at(9, 4), None), (at(11, 5), Some(at(11, 5))), (at(11, 6), Some(at(11, 6)))]
    {
        sender.handle_down(ack(vec![said]), Moment(1));
        assert_eq!(sender.take_marks(), told.map(|mark| vec![mark]));
    }
}

#[test]
fn ranges_above_the_mark_suppress_resending_and_late_ones_do_not_count() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 30)], &[mark(TRADE, 0)]);
    for first in [1, 11, 21] {
        sender.handle_sent(TRADE, range(first, first + 9), 1_000, &[], Moment(0));
    }
    let with = |stored, ranges| Mark { ranges, ..mark(TRADE, stored) };
    let resend_at = sender.poll_timeout();
    sender.handle_down(ack(vec![with(0, vec![range(11, 15)])]), Moment(50));
    assert_eq!(sender.in_flight(), 3, "half a batch is none");
    assert_eq!(sender.poll_timeout(), resend_at, "and no progress");
    sender.handle_down(ack(vec![with(0, vec![range(11, 30)])]), Moment(50));
    assert_eq!(sender.in_flight(), 1);
    assert_eq!(sender.poll_timeout(), Moment(resend_at.0 + 50), "that is progress");
    sender.handle_down(ack(vec![with(1, vec![range(11, 30)])]), Moment(50));
    sender.handle_down(ack(vec![with(0, vec![])]), Moment(51));
    let at = sender.poll_timeout();
    sender.handle_timeout(at);
    let Some(Command::Send { first, .. }) = sender.next_command(at) else { panic!("no batch") };
    sender.handle_sent(TRADE, range(first.seq.0, 10), 1_000, &[], at);
    assert_eq!((first.seq, sender.next_command(at)), (Seq(2), None), "the rest is stored");
}

#[test]
fn what_the_hub_does_not_take_yet_comes_again_and_an_idle_lane_has_no_timer() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 10)], &[mark(TRADE, 0)]);
    drain(&mut sender, 10, Moment(0));
    let first = RecordKey { epoch: EPOCH, lane: Lane::Trade, seq: Seq(1) };
    sender.handle_down(Down::Nack(Nack { session: SESSION, first, reason: NackReason::Ahead }), Moment(1));
    assert_eq!(sender.in_flight(), 0);
    let at = sender.poll_timeout();
    assert!(at < Moment(HELLO_INTERVAL_MS / 2), "it is not forgotten: {at:?}");
    sender.handle_timeout(at);
    assert_eq!(drain(&mut sender, 10, at), [(TRADE, range(1, 10))]);
    sender.handle_down(ack(vec![mark(TRADE, 10)]), at);
    assert!(sender.poll_timeout() > Moment(HELLO_INTERVAL_MS / 2), "only the next hello is due");
}

#[test]
fn hellos_are_spread_a_tenth_either_way() {
    let mut sender = sender(vec![head(Lane::Trade, 1, 1)]);
    let (mut now, mut waits) = (Moment(0), BTreeSet::new());
    for _ in 0..64 {
        assert!(says_hello(&mut sender, now));
        let at = sender.poll_timeout();
        waits.insert(at.since_ms(now));
        now = at;
    }
    let (least, most) = (*waits.first().expect("64"), *waits.last().expect("64"));
    assert!(least >= HELLO_RETRY_MS * 9 / 10 && most <= HELLO_RETRY_MS * 11 / 10, "{least} to {most}");
    assert!(waits.len() > 32 && most - least > HELLO_RETRY_MS / 7, "{} waits, {least} to {most}", waits.len());
}

#[test]
fn a_range_that_a_person_wants_goes_on_behind_each_batch() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 1_000)], &[mark(TRADE, 1_000)]);
    sender.handle_down(Down::RangeRequest { session: SESSION, key: TRADE, range: range(10, 30) }, Moment(1));
    for (first, last) in [(10, 15), (16, 30)] {
        let Some(Command::Send { first: wanted, .. }) = sender.next_command(Moment(1)) else { panic!("no batch") };
        assert_eq!(wanted.seq, Seq(first));
        sender.handle_sent(TRADE, range(first, last), 1_000, &[], Moment(1));
    }
    assert_eq!(sender.next_command(Moment(1)), None);
}

#[test]
fn two_ranges_that_people_want_are_both_sent() {
    let mut sender = welcomed(vec![head(Lane::Trade, 1, 1_000)], &[mark(TRADE, 1_000)]);
    for wanted in [range(10, 12), range(20, 21)] {
        sender.handle_down(Down::RangeRequest { session: SESSION, key: TRADE, range: wanted }, Moment(1));
    }
    let Some(Command::Send { first, .. }) = sender.next_command(Moment(1)) else { panic!("no batch") };
    assert_eq!(first.seq, Seq(10));
    sender.handle_sent(TRADE, range(10, 21), 1_000, &[], Moment(1));
    assert_eq!(sender.next_command(Moment(1)), None);
}

fn prove_of(sender: &mut Sender) -> Option<Seq> {
    match sender.next_command(Moment(1)) {
        Some(Command::Prove(key)) => Some(key.seq),
        Some(Command::Hello(_) | Command::Positions | Command::Send { .. }) | None => None,
    }
}

fn first_to_send(sender: &mut Sender) -> Option<Seq> {
    loop {
        match sender.next_command(Moment(1)) {
            Some(Command::Send { first, .. }) => return Some(first.seq),
            Some(Command::Prove(_) | Command::Hello(_) | Command::Positions) => {}
            None => return None,
        }
    }
}

fn record(seq: u64) -> RecordKey {
    RecordKey { epoch: EPOCH, lane: Lane::Trade, seq: Seq(seq) }
}

#[test]
fn of_marks_that_wait_for_their_chain_the_furthest_counts_with_the_highest_safe() {
    let with = |stored, safe| Mark { safe: Seq(safe), ..chained(1, stored) };
    let waiting = |marks: &[Mark]| {
        let mut sender = welcomed_over(1, 0, 9);
        send_own(&mut sender, 9);
        sender.take_marks();
        for mark in marks {
            sender.handle_down(ack(vec![mark.clone()]), Moment(2));
        }
        let Some(asked) = prove_of(&mut sender) else { panic!("nothing is unproven") };
        sender.handle_chain(record(asked.0), Some(chain_of(1, asked.0)), Moment(3));
        let told = sender.take_marks().map(|marks| (marks[0].stored.0, marks[0].safe.0));
        (asked.0, told, sender.contested(), prove_of(&mut sender))
    };
    assert_eq!(waiting(&[with(4, 3), with(6, 1)]), (6, Some((6, 3)), 0, None));
    assert_eq!(waiting(&[with(6, 1), with(5, 3)]), (6, Some((6, 3)), 0, None));
    let absent = Mark { absent: vec![range(2, 3)], ..with(6, 1) };
    assert_eq!(waiting(&[with(5, 1)]), (5, Some((5, 1)), 0, None));
    let mut sender = welcomed_over(1, 0, 9);
    send_own(&mut sender, 9);
    for mark in [with(6, 1), absent] {
        sender.handle_down(ack(vec![mark]), Moment(2));
    }
    assert_eq!(sender.contested(), 1, "of two with one number the later one counts");
}

#[test]
fn a_chain_that_is_known_is_not_looked_up_again() {
    let mut sender = welcomed_over(1, 4, 9);
    assert_eq!(prove_of(&mut sender), Some(Seq(4)));
    sender.handle_chain(record(4), Some(chain_of(1, 4)), Moment(1));
    sender.handle_down(ack(vec![chained(1, 4)]), Moment(2));
    assert_ne!(sender.next_command(Moment(2)), Some(Command::Prove(record(4))));

    let given_back = LaneHead { chain_before: Some(chain_of(1, 4)), ..head(Lane::Trade, 5, 9) };
    for (stored, asked) in [(3, None), (4, None), (5, Some(Seq(5)))] {
        let mut sender = super::sender(vec![given_back.clone()]);
        welcome(&mut sender, HUB, &[chained(1, stored)], 64, Moment(0));
        if stored == 3 {
            assert!(matches!(sender.next_command(Moment(0)), Some(Command::Hello(_))), "it tells what is gone");
        }
        assert_eq!((prove_of(&mut sender), sender.contested()), (asked, 0), "{stored}");
    }
    let mut sender = super::sender(vec![given_back]);
    welcome(&mut sender, HUB, &[chained(2, 4)], 64, Moment(0));
    assert_eq!(sender.contested(), 1, "the chain before the first number retained is at hand");
}

#[test]
fn the_chain_before_a_gap_is_told_as_the_journal_knows_it() {
    let gone = Gone { range: range(3, 4), reason: GoneReason::Damaged, chain_before: None, chain_after: None };
    let mut sender = sender(vec![LaneHead { gone: vec![gone], ..head(Lane::Trade, 1, 9) }]);
    assert_eq!(prove_of(&mut sender), Some(Seq(2)));
    sender.handle_chain(record(2), Some(chain_of(1, 2)), Moment(1));
    let Some(Command::Hello(pages)) = sender.next_command(Moment(1)) else { panic!("no hello") };
    assert_eq!(pages[0].epochs[0].lanes[0].gone, [Gone { chain_before: Some(chain_of(1, 2)), ..gone }]);
}

#[test]
fn what_the_hub_took_of_a_contested_lane_is_remembered_in_any_order_and_nothing_else() {
    let mut sender = welcomed_over(1, 0, 9);
    send_own(&mut sender, 4);
    sender.handle_down(ack(vec![Mark { ranges: vec![range(6, 7)], ..chained(1, 4) }]), Moment(2));
    let own = LaneHead { chain: Some(chain_of(1, 12)), ..head(Lane::Trade, 1, 12) };
    sender.handle_heads(heads(vec![own.clone()]), Moment(2));
    sender.handle_down(ack(vec![chained(2, 12)]), Moment(2));
    if let Some(asked) = prove_of(&mut sender) {
        sender.handle_chain(record(asked.0), Some(chain_of(1, asked.0)), Moment(2));
    }
    assert_eq!((sender.contested(), first_to_send(&mut sender)), (1, Some(Seq(5))));
    for (first, last) in [(5, 5), (6, 8), (9, 9)] {
        assert_eq!(first_to_send(&mut sender), Some(Seq(first)), "others may have what an earlier mark named");
        sender.handle_sent(TRADE, range(first, last), 1_000, &digests_of(1, range(first, last)), Moment(2));
    }
    sender.take_marks();
    let mut told = |first, last| {
        sender.handle_down(taken(range(first, last), 1, chained(2, 12)), Moment(3));
        sender.take_marks().map(|marks| marks[0].stored.0)
    };
    assert_eq!(told(9, 9), Some(4));
    assert_eq!(told(6, 8), Some(4));
    assert_eq!(told(5, 5), Some(9));
    sender.handle_heads(heads(vec![own]), Moment(3));
    assert_eq!(sender.take_marks(), None, "it did not move");
    sender.handle_down(Down::HelloWanted { hub_epoch: HUB }, Moment(4));
    let Some(Command::Hello(pages)) = sender.next_command(Moment(3_000)) else { panic!("no hello") };
    let welcome = Welcome {
        version: WireVersion::V1,
        session: SESSION,
        round: pages[0].round,
        hub_epoch: HUB,
        page: 0,
        marks: vec![chained(1, 9)],
        window: WINDOW_SEQS_MAX,
        credit: 64,
    };
    sender.handle_down(Down::Welcome(welcome), Moment(3_000));
    assert_eq!(prove_of(&mut sender), Some(Seq(9)), "the chain after it is nobody's memory");
}
