//! The owner, driven turn by turn in one thread, on a disk in memory that loses power, runs full, fails and rots.
//!
//! What is held here: who is answered and when, what a restart changes (nothing that a till can see), and what is refused.

use std::sync::Arc;

use counterfoil_proto::id::{LaneKey, Seq};
use counterfoil_proto::message::Mark;
use counterfoil_proto::record::{Kind, Prepared, prepare};
use tokio::sync::{oneshot, watch};

use super::open;
use super::owner::{Ground, Owner};
use super::{Inbox, Request, channel};
use crate::answer::{Conflict, Forecast, Outcome, Receipt, Refused, Status};
use crate::config::Config;
use crate::env::{Env, Script};
use crate::journal::disk::memory::{Call, Cut, Failure, MemoryDisk};
use crate::uplink::View;

mod counting;
mod sealing;

type Answer = oneshot::Receiver<Result<Vec<Outcome>, Refused>>;

/// A box with a disk, which can be started again and again.
struct World {
    disk: MemoryDisk,
    directory: tempfile::TempDir,
    config: Config,
    env: Env,
    script: Script,
    view: watch::Sender<Arc<View>>,
    inbox: Inbox,
}

impl World {
    fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        let text = format!(
            "store_id = \"0042\"\nagent_id = \"box1\"\ndata_dir = \"data\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        let config = Config::load_with(&file, []).unwrap();
        let (env, script) = Env::scripted(7);
        let (view, _) = watch::channel(Arc::new(View::default()));
        let (_, inbox) = channel(8, Status::default());
        Self { disk: MemoryDisk::new(), directory, config, env, script, view, inbox }
    }

    fn start(&self) -> Owner {
        let ground =
            Ground { disk: Arc::new(self.disk.clone()), ..open::ground(&self.config, Arc::default()).unwrap() };
        let mut owner = Owner::open_on(ground, &self.config, self.env.clone(), self.view.subscribe()).unwrap();
        owner.settle(&self.inbox).unwrap();
        owner
    }

    /// Lets the owner's timers come due.
    fn pass_time(&self, owner: &mut Owner) {
        self.script.advance_ms(10_000);
        owner.tick(&self.inbox).unwrap();
    }

    fn forget_state(&self) {
        std::fs::remove_dir_all(self.directory.path().join("data/state")).unwrap();
    }

    fn sale(&self, number: u64, amount: &str) -> Prepared {
        let document = format!(
            r#"{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{number},"type":"sale",
            "end_date_time":"2026-11-23T10:15:40+01:00","currency_code":"EUR",
            "line_items":[{{"line":1,"kind":"sale","item_id":"mug","quantity":"1","actual_unit_price":"{amount}","extended_amount":"{amount}"}}],
            "tenders":[{{"line":1,"type":"cash","amount":"{amount}"}}],"totals":{{"gross":"{amount}"}}}}"#
        );
        prepare(Kind::TRANSACTION, document.as_bytes(), None, &self.config.context()).unwrap()
    }

    /// A return of mugs at one euro against the sale `of`.
    fn return_of(&self, number: u64, of: u64, quantity: u64) -> Prepared {
        let document = format!(
            r#"{{"workstation_id":"4","business_day_date":"2026-11-23","sequence_number":{number},"type":"return",
            "end_date_time":"2026-11-23T11:15:40+01:00","currency_code":"EUR",
            "line_items":[{{"line":1,"kind":"return","item_id":"mug","quantity":"-{quantity}","actual_unit_price":"1.00","extended_amount":"-{quantity}.00",
            "transaction_link":{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{of}}}}}],
            "tenders":[{{"line":1,"type":"cash","amount":"-{quantity}.00"}}],"totals":{{"gross":"-{quantity}.00"}}}}"#
        );
        prepare(Kind::TRANSACTION, document.as_bytes(), None, &self.config.context()).unwrap()
    }
}

fn forecast(owner: &mut Owner, documents: Vec<Prepared>) -> Vec<Forecast> {
    let (reply, mut answer) = oneshot::channel();
    owner.turn(vec![Request::Forecast { documents, reply }]).unwrap();
    answer.try_recv().unwrap().unwrap()
}

fn submit(documents: Vec<Prepared>) -> (Request, Answer) {
    let (reply, answer) = oneshot::channel();
    (Request::Submit { documents, reply }, answer)
}

fn post(owner: &mut Owner, document: Prepared) -> Outcome {
    let (request, mut answer) = submit(vec![document]);
    owner.turn(vec![request]).unwrap();
    answer.try_recv().unwrap().unwrap().remove(0)
}

fn receipt(outcome: &Outcome) -> &Receipt {
    let (Outcome::Recorded(receipt) | Outcome::Duplicate(receipt)) = outcome else { panic!("{outcome:?}") };
    receipt
}

fn conflict(outcome: Outcome) -> Conflict {
    let Outcome::Conflict(conflict) = outcome else { panic!("{outcome:?}") };
    conflict
}

/// Everything that a till or a person can ask for, as text.
fn answers(owner: &mut Owner, sales: u64) -> String {
    let mut text = String::new();
    let mut ask = |make: &dyn Fn() -> (Request, Box<dyn FnMut() -> String>)| {
        let (request, mut answer) = make();
        owner.turn(vec![request]).unwrap();
        text.push_str(&answer());
        text.push('\n');
    };
    macro_rules! question {
        ($variant:ident { $($field:ident: $value:expr),* }) => {
            ask(&|| {
                let (reply, mut answer) = oneshot::channel();
                let request = Request::$variant { $($field: $value,)* reply };
                (request, Box::new(move || format!("{:?}", answer.try_recv().unwrap())))
            });
        };
    }
    question!(Stock { item_id: "mug".into() });
    question!(Day { business_day_date: "2026-11-23".into() });
    question!(Exceptions { all: true });
    for number in 1..=sales {
        question!(Receipt { identity: format!("t/3/2026-11-23/{number}/0") });
    }
    text
}

#[test]
fn the_same_sale_at_once_is_one_record_and_both_wait_for_its_sync() {
    let world = World::new("");
    let mut owner = world.start();
    let (one, mut first) = submit(vec![world.sale(1, "8.98")]);
    let (two, mut second) = submit(vec![world.sale(1, "8.98")]);
    let before = world.disk.syncs();
    owner.turn(vec![one, two]).unwrap();
    assert_eq!(world.disk.syncs(), before + 1, "two tills share one sync");
    let first = first.try_recv().unwrap().unwrap().remove(0);
    let second = second.try_recv().unwrap().unwrap().remove(0);
    assert!(matches!((&first, &second), (Outcome::Recorded(_), Outcome::Duplicate(_))));
    assert_eq!(Receipt { duplicate: true, ..receipt(&first).clone() }, *receipt(&second));

    // A sync that fails answers neither: nobody may be told what is not on the disk.
    let (one, mut first) = submit(vec![world.sale(2, "8.98")]);
    let (two, mut second) = submit(vec![world.sale(2, "8.98")]);
    let (three, mut known) = submit(vec![world.sale(1, "8.98")]);
    let failure =
        Failure { call: Call::Sync, after: 0, for_ever: true, kind: std::io::ErrorKind::Other, short_bytes: 0 };
    world.disk.fail(Some(failure));
    assert!(owner.turn(vec![one, two, three]).is_err());
    for answer in [&mut first, &mut second, &mut known] {
        assert!(answer.try_recv().is_err(), "answered without a sync");
    }
}

#[test]
fn other_content_is_kept_once_however_often_it_comes() {
    let world = World::new("");
    let mut owner = world.start();
    let first = post(&mut owner, world.sale(1, "8.98"));
    let one = conflict(post(&mut owner, world.sale(1, "9.98")));
    assert_eq!(one.existing, Receipt { duplicate: true, ..receipt(&first).clone() });
    let head = one.kept.seq;
    let again = conflict(post(&mut owner, world.sale(1, "9.98")));
    assert_eq!((again.kept.seq, &again.exception_id), (head, &one.exception_id));
    let third = conflict(post(&mut owner, world.sale(1, "7.98")));
    assert_eq!(third.kept.seq, head + 1);
    drop(owner);
    world.disk.power_cut(Cut::DropAll);
    let mut owner = world.start();
    let after = conflict(post(&mut owner, world.sale(1, "9.98")));
    assert_eq!((after.kept.seq, after.existing), (head, one.existing));
    assert!(matches!(post(&mut owner, world.sale(1, "8.98")), Outcome::Duplicate(_)));
    assert!(answers(&mut owner, 1).contains("\"8.98\""), "the first one counts");
}

#[test]
fn a_restart_changes_no_answer_whatever_it_finds_of_the_state() {
    let world = World::new("");
    let mut owner = world.start();
    let mut sales = 0;
    for round in 0..9_u64 {
        for _ in 0..20 {
            sales += 1;
            post(&mut owner, world.sale(sales, "8.98"));
        }
        conflict(post(&mut owner, world.sale(sales, "1.00")));
        if round % 2 == 0 {
            world.pass_time(&mut owner);
        }
        let before = answers(&mut owner, sales);
        match round % 3 {
            0 => owner.close().unwrap(),
            1 => drop(owner),
            _ => {
                drop(owner);
                world.disk.power_cut(Cut::Subset(round));
            }
        }
        if round % 4 == 1 {
            world.forget_state();
        }
        owner = world.start();
        assert_eq!(answers(&mut owner, sales), before, "round {round}");
    }
}

#[test]
fn a_reclaim_and_a_lost_state_change_no_total_and_no_stock() {
    let world = World::new("[journal]\nsegment_bytes = \"4MiB\"\nretain = \"0s\"\n");
    let mut owner = world.start();
    let mut sales = 0;
    while owner.status_for_test(&world.inbox).disk.segments < 4 {
        let documents = (0..500).map(|_| {
            sales += 1;
            world.sale(sales, "8.98")
        });
        let (request, mut answer) = submit(documents.collect());
        owner.turn(vec![request]).unwrap();
        answer.try_recv().unwrap().unwrap();
    }
    let epoch = owner.status_for_test(&world.inbox).epoch.unwrap().parse().unwrap();
    let key = LaneKey { epoch, lane: Kind::TRANSACTION.lane() };
    let head = Seq(sales + 1);

    // Without an answer of the hub in this session nothing is given back, whatever is known from before.
    let marks = vec![Mark { key, stored: head, safe: head, ranges: vec![], absent: vec![], chain: None }];
    owner.turn(vec![Request::Marks { marks }]).unwrap();
    world.pass_time(&mut owner);
    assert!(owner.status_for_test(&world.inbox).disk.segments >= 4);
    let mut view = View::default();
    view.status.welcomed = true;
    world.view.send_replace(Arc::new(view));
    world.pass_time(&mut owner);
    assert!(owner.status_for_test(&world.inbox).disk.segments <= 2, "safe segments are given back");

    let before = answers(&mut owner, 3);
    assert!(before.contains(&format!("transactions: {sales}")));
    owner.close().unwrap();
    world.forget_state();
    let mut owner = world.start();
    assert_eq!(answers(&mut owner, 3), before);
}

#[test]
fn a_full_disk_refuses_and_says_so_and_accepts_again_by_itself() {
    let world = World::new("[journal]\nsegment_bytes = \"4MiB\"\nretain = \"0s\"\n");
    let mut owner = world.start();
    post(&mut owner, world.sale(1, "8.98"));
    world.disk.set_capacity(Some(world.disk.used_bytes()));
    let (request, mut answer) = submit(vec![world.sale(2, "8.98")]);
    owner.turn(vec![request]).unwrap();
    assert_eq!(answer.try_recv().unwrap(), Err(Refused::Full));
    assert_eq!(owner.status_for_test(&world.inbox).mode, "full");
    world.disk.set_capacity(None);
    world.pass_time(&mut owner);
    let outcome = post(&mut owner, world.sale(2, "8.98"));
    assert_eq!(receipt(&outcome).seq, 3, "a refused document took no number");
}

#[test]
fn damage_is_named_and_what_it_took_is_recorded_anew() {
    let world = World::new("");
    let mut owner = world.start();
    for number in 1..=5 {
        post(&mut owner, world.sale(number, "8.98"));
    }
    drop(owner);
    let name = world.disk.files().into_iter().map(|file| file.name).find(|name| name.contains(".seg")).unwrap();
    let bytes = world.disk.content(&name).unwrap();
    let needle = b"\"sequence_number\":3";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    assert!(world.disk.flip(&name, at, 0x10));
    let mut owner = world.start();
    let text = answers(&mut owner, 5);
    assert!(text.contains("JOURNAL_DAMAGE"), "{text}");
    assert!(matches!(post(&mut owner, world.sale(3, "8.98")), Outcome::Recorded(_)), "what is lost is recorded anew");
    assert!(matches!(post(&mut owner, world.sale(4, "8.98")), Outcome::Duplicate(_)));
}

fn codes(forecast: &Forecast) -> Vec<&str> {
    let Forecast::Recorded { flags } = forecast else { panic!("{forecast:?}") };
    flags.iter().map(|flag| flag.code.as_ref()).collect()
}

#[test]
fn a_return_beyond_its_receipt_is_flagged_as_it_was_forecast_and_recorded_all_the_same() {
    let world = World::new("");
    let mut owner = world.start();
    post(&mut owner, world.sale(1, "1.00"));
    let all =
        vec![world.return_of(1, 1, 1), world.return_of(2, 1, 1), world.return_of(3, 77, 9), world.return_of(1, 1, 1)];
    let forecasts = forecast(&mut owner, all.clone());
    assert_eq!(codes(&forecasts[0]), [""; 0]);
    assert_eq!(codes(&forecasts[1]), ["OVER_RETURN"], "the first one counts");
    assert_eq!(codes(&forecasts[2]), [""; 0], "nobody knows receipt 77");
    assert_eq!(forecasts[3], Forecast::Duplicate);
    assert_eq!(forecast(&mut owner, vec![world.sale(1, "2.00")]), [Forecast::Conflict]);
    assert_eq!(forecast(&mut owner, all.clone()), forecasts, "a forecast leaves nothing behind");
    // Sold and given back in one group: the sale is staged and not synced yet.
    let unsold = vec![world.sale(2, "1.00"), world.return_of(5, 2, 2)];
    assert_eq!(codes(&forecast(&mut owner, unsold.clone())[1]), ["OVER_RETURN"]);

    let (request, mut answer) = submit([all, unsold].concat());
    owner.turn(vec![request]).unwrap();
    let outcomes = answer.try_recv().unwrap().unwrap();
    let exceptions: Vec<_> = outcomes.iter().map(|outcome| receipt(outcome).exceptions.join(" ")).collect();
    assert_eq!(exceptions, ["", "OVER_RETURN", "", "", "", "OVER_RETURN"]);

    owner.close().unwrap();
    world.forget_state();
    let mut owner = world.start();
    let further = forecast(&mut owner, vec![world.return_of(6, 1, 1), world.return_of(7, 77, 1)]);
    assert_eq!((codes(&further[0]), codes(&further[1])), (vec!["OVER_RETURN"], vec![]));
}

#[test]
fn three_failed_syncs_within_an_hour_leave_only_the_draining() {
    let world = World::new("");
    let failure =
        Failure { call: Call::Sync, after: 0, for_ever: true, kind: std::io::ErrorKind::Other, short_bytes: 0 };
    for number in 1..=3 {
        let mut owner = world.start();
        world.disk.fail(Some(failure));
        let (request, _answer) = submit(vec![world.sale(number, "8.98")]);
        assert!(owner.serve(vec![request], &world.inbox).is_err(), "the sync failed");
        drop(owner);
        world.disk.kill();
    }
    let mut owner = world.start();
    let (request, mut answer) = submit(vec![world.sale(4, "8.98")]);
    owner.serve(vec![request], &world.inbox).unwrap();
    assert_eq!(answer.try_recv().unwrap(), Err(Refused::DrainOnly), "the notes survived the disk that took nothing");
    // Who still delivers is alive, whatever the disk takes.
    world.disk.fail(Some(failure));
    let (request, mut answer) = probe();
    owner.serve(vec![request], &world.inbox).unwrap();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
}

fn probe() -> (Request, oneshot::Receiver<Result<(), Refused>>) {
    let (reply, answer) = oneshot::channel();
    (Request::Probe { reply }, answer)
}

#[test]
fn a_test_commit_syncs_is_no_record_and_is_answered_on_a_full_disk_but_not_on_a_failed_one() {
    let world = World::new("");
    let mut owner = world.start();
    for _ in 0..2 {
        let (syncs, (request, mut answer)) = (world.disk.syncs(), probe());
        owner.serve(vec![request], &world.inbox).unwrap();
        assert_eq!((answer.try_recv().unwrap(), world.disk.syncs()), (Ok(()), syncs + 1));
    }
    assert_eq!(owner.status_for_test(&world.inbox).epoch, None, "nothing that the hub would hear of");
    let full =
        Failure { call: Call::Write, after: 0, for_ever: true, kind: std::io::ErrorKind::StorageFull, short_bytes: 0 };
    world.disk.fail(Some(full));
    let (request, mut answer) = probe();
    owner.serve(vec![request], &world.inbox).unwrap();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    for call in [Call::Write, Call::Sync] {
        drop(owner);
        world.disk.kill();
        owner = world.start();
        let failure = Failure { call, after: 0, for_ever: true, kind: std::io::ErrorKind::Other, short_bytes: 0 };
        world.disk.fail(Some(failure));
        let (request, mut answer) = probe();
        assert!(owner.serve(vec![request], &world.inbox).is_err());
        assert!(answer.try_recv().is_err());
    }
}

/// Codes of what waits for a person.
fn open_codes(owner: &mut Owner) -> Vec<String> {
    let (reply, mut answer) = oneshot::channel();
    owner.turn(vec![Request::Exceptions { all: false, reply }]).unwrap();
    answer.try_recv().unwrap().unwrap().into_iter().map(|exception| exception.code).collect()
}

#[test]
fn a_number_that_does_not_come_is_told_once_it_is_late_and_once() {
    let world = World::new("[store]\nsequence_gap_patience = \"30s\"\n");
    let mut owner = world.start();
    post(&mut owner, world.sale(1, "1.00"));
    post(&mut owner, world.sale(4, "1.00"));
    world.pass_time(&mut owner);
    world.pass_time(&mut owner);
    assert_eq!(open_codes(&mut owner), Vec::<String>::new());
    for _ in 0..3 {
        world.pass_time(&mut owner);
    }
    assert_eq!(open_codes(&mut owner), ["SEQUENCE_GAP"]);
    // A restart, with the state and without, tells nothing again.
    owner.close().unwrap();
    world.forget_state();
    let mut owner = world.start();
    for _ in 0..9 {
        world.pass_time(&mut owner);
    }
    assert_eq!(open_codes(&mut owner), ["SEQUENCE_GAP"]);
    post(&mut owner, world.sale(9, "1.00"));
    for _ in 0..9 {
        world.pass_time(&mut owner);
    }
    assert_eq!(open_codes(&mut owner), ["SEQUENCE_GAP", "SEQUENCE_GAP"]);
}

#[test]
fn goods_that_nobody_collects_are_told_offline_too() {
    let world = World::new("");
    let mut owner = world.start();
    let update = |id: &str, state: &str, until: &str| {
        let document = format!(
            r#"{{"document_id":"{id}","order_id":"W-1","type":"pickup","state":"{state}","end_date_time":"2026-11-23T11:00:00Z",
            "ready_at":"{until}","expires_at":"{until}","line_items":[{{"line":1,"item_id":"mug","quantity":"1"}}]}}"#
        );
        prepare(Kind::FULFILLMENT_UPDATE, document.as_bytes(), None, &world.config.context()).unwrap()
    };
    let soon = counterfoil_proto::time::WallTime(world.env.wall().0 + 35_000).to_rfc3339();
    post(&mut owner, update("f1", "prepared", &soon));
    for _ in 0..3 {
        world.pass_time(&mut owner);
    }
    assert_eq!(open_codes(&mut owner), Vec::<String>::new());
    for _ in 0..5 {
        world.pass_time(&mut owner);
    }
    assert_eq!(open_codes(&mut owner), ["PICKUP_STALE"]);
    let (reply, mut answer) = oneshot::channel();
    owner.turn(vec![Request::Exceptions { all: false, reply }]).unwrap();
    let told = answer.try_recv().unwrap().unwrap().remove(0);
    assert_eq!((told.correlation_id.as_deref(), told.class.as_str()), (Some("W-1"), "business"));
}

#[test]
fn a_number_that_was_used_is_flagged_and_both_receipts_count() {
    let world = World::new("");
    let mut owner = world.start();
    let named = |id: &str, number: u64| {
        let document = String::from_utf8(world.sale(number, "1.00").document).unwrap();
        let document = document.replacen('{', &format!("{{\"document_id\":\"{id}\","), 1);
        prepare(Kind::TRANSACTION, document.as_bytes(), None, &world.config.context()).unwrap()
    };
    assert_eq!(receipt(&post(&mut owner, named("a", 1))).exceptions, Vec::<String>::new());
    let foretold = forecast(&mut owner, vec![named("b", 1), named("c", 2), named("d", 2)]);
    assert_eq!(
        foretold.iter().map(codes).collect::<Vec<_>>(),
        [vec!["NUMBER_DOUBLED"], vec![], vec!["NUMBER_DOUBLED"]]
    );
    let (request, mut answer) = submit(vec![named("b", 1), named("c", 2), named("d", 2)]);
    owner.turn(vec![request]).unwrap();
    let outcomes = answer.try_recv().unwrap().unwrap();
    let exceptions: Vec<_> = outcomes.iter().map(|outcome| receipt(outcome).exceptions.join(" ")).collect();
    assert_eq!(exceptions, ["NUMBER_DOUBLED", "", "NUMBER_DOUBLED"]);
    assert!(matches!(post(&mut owner, named("a", 1)), Outcome::Duplicate(_)));
    let (reply, mut answer) = oneshot::channel();
    owner.turn(vec![Request::Day { business_day_date: "2026-11-23".to_owned(), reply }]).unwrap();
    assert_eq!(answer.try_recv().unwrap().unwrap().currencies[0].transactions, 4);
}
