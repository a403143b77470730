//! The spool: a file goes in once, whatever happens in between.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::dialects::{file, ncr_file, ncr_sale};
use super::*;
use crate::config::SpoolConfig;
use crate::legacy::spool::Spool;

const TRANSACTIONS: u64 = 150;

fn spool(directory: &Path, agent: &Agent, profile_name: &str) -> Spool {
    let config = SpoolConfig {
        directory: directory.join("spool"),
        profile: profile(profile_name),
        poll_interval: Duration::from_millis(1),
        retain: Duration::from_hours(1),
    };
    Spool::open(config, context(), agent.handle.clone(), Env::of_this_box().unwrap()).unwrap()
}

fn names(directory: &Path, place: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory.join("spool").join(place)).unwrap();
    let files = entries.map(Result::unwrap).filter(|entry| entry.path().is_file());
    files.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn result(directory: &Path, place: &str, name: &str) -> Value {
    let path = directory.join("spool").join(place).join(format!("{name}.result.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn counts(result: &Value) -> [u64; 4] {
    ["recorded", "duplicates", "refused", "conflicts"].map(|name| result[name].as_u64().unwrap())
}

/// Two looks: the first sees the file, the second takes it.
async fn turns(spool: &Spool) {
    let (_stop, stopping) = watch::channel(false);
    let mut seen = BTreeMap::new();
    for _ in 0..2 {
        spool.turn(&mut seen, &stopping).await.unwrap();
    }
}

fn put(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join("spool").join(name), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_spooled_twice_adds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path());
    let spool = spool(directory.path(), &agent, "ncr-2.1");
    put(directory.path(), "day.xml", &ncr_file(TRANSACTIONS));
    turns(&spool).await;
    assert_eq!(names(directory.path(), "done"), ["day.xml", "day.xml.result.json"].map(str::to_owned).into());
    let first = result(directory.path(), "done", "day.xml");
    assert_eq!((counts(&first), &first["accepted"]), ([TRANSACTIONS, 0, 0, 0], &true.into()));
    let indexes: Vec<u64> =
        first["results"].as_array().unwrap().iter().map(|one| one["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (0..TRANSACTIONS).collect::<Vec<_>>());
    put(directory.path(), "day.xml", &ncr_file(TRANSACTIONS));
    turns(&spool).await;
    let again = result(directory.path(), "done", "day.xml~2");
    assert_eq!(counts(&again), [0, TRANSACTIONS, 0, 0]);
    assert_eq!(again["results"][7]["receipt"]["seq"], first["results"][7]["receipt"]["seq"]);
    assert_eq!(result(directory.path(), "done", "day.xml"), first, "nothing was overwritten");
    assert_eq!(agent.exceptions().await, BTreeMap::new());
    drop(spool);
    agent.stop();
}

/// Work is dropped after each step, with the agent started anew, as a kill would.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_loses_and_doubles_nothing() {
    for steps in 0..=4 {
        let directory = tempfile::tempdir().unwrap();
        let agent = Agent::start(directory.path());
        let (_stop, stopping) = watch::channel(false);
        let killed = spool(directory.path(), &agent, "ncr-2.1");
        put(directory.path(), "day.xml", &ncr_file(TRANSACTIONS));
        if steps >= 1 {
            killed.take("day.xml").unwrap();
        }
        if steps == 2 {
            // Some of it was submitted, and nothing is known of it but in the journal.
            let some = prepared(&profile("ncr-2.1"), ncr_file(70).as_bytes());
            agent.submit(some).await;
            put(directory.path(), "working/day.xml.result.tmp", "{\"file\":\"day.xml\",\"res");
        }
        if steps >= 3 {
            assert_eq!(killed.answer("day.xml", &stopping).await.unwrap(), Some(true));
        }
        if steps >= 4 {
            killed.publish("day.xml", "done").unwrap();
        }
        drop(killed);
        agent.stop();
        let agent = Agent::start(directory.path());
        let spool = spool(directory.path(), &agent, "ncr-2.1");
        turns(&spool).await;
        let answer = result(directory.path(), "done", "day.xml");
        let expected = [[150, 0, 0, 0], [150, 0, 0, 0], [80, 70, 0, 0], [0, 150, 0, 0], [0, 150, 0, 0]][steps];
        assert_eq!(counts(&answer), expected, "{steps}");
        assert_eq!(names(directory.path(), "done"), ["day.xml", "day.xml.result.json"].map(str::to_owned).into());
        assert!(names(directory.path(), "").is_empty() && names(directory.path(), "working").is_empty(), "{steps}");
        let day = agent.handle.day("2026-11-23".to_owned()).await.unwrap();
        let day = serde_json::to_string(&day).unwrap();
        assert!(day.contains("1575.00"), "150 sales of 10.50, once each: {day}");
        drop(spool);
        agent.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path());
    let spool = spool(directory.path(), &agent, "ncr-2.1");
    for name in ["day.xml.tmp", ".day.xml", "day.part", "old.result.json"] {
        put(directory.path(), name, &ncr_file(1));
    }
    put(directory.path(), "day.xml", "<POSLog>");
    let (ready, before) = spool.look(&BTreeMap::new()).unwrap();
    assert!(ready.is_empty(), "it may have begun just now");
    put(directory.path(), "day.xml", "<POSLog><Transaction>");
    let (ready, before) = spool.look(&before).unwrap();
    assert!(ready.is_empty(), "it grew");
    assert_eq!(spool.look(&before).unwrap().0, ["day.xml"]);
    drop(spool);
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_goes_to_failed_with_what_came_before_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path());
    let spool = spool(directory.path(), &agent, "ncr-2.1");
    put(directory.path(), "cut.xml", ncr_file(3).split_once("</POSLog>").unwrap().0);
    put(directory.path(), "empty.xml", "");
    let wrong = ncr_sale(4).replace("<SequenceNumber>4<", "<SequenceNumber>four<");
    put(directory.path(), "wrong.xml", &file(&[wrong, ncr_sale(5)]));
    turns(&spool).await;
    assert_eq!(names(directory.path(), "done"), BTreeSet::new());
    let cut = result(directory.path(), "failed", "cut.xml");
    assert_eq!((counts(&cut), &cut["results"][3]["status"]), ([3, 0, 1, 0], &400.into()));
    assert_eq!(counts(&result(directory.path(), "failed", "empty.xml")), [0, 0, 0, 0]);
    let wrong = result(directory.path(), "failed", "wrong.xml");
    assert_eq!(
        (counts(&wrong), &wrong["results"][0]["problem"]["faults"][0]["pointer"]),
        ([1, 0, 1, 0], &"/SequenceNumber".into())
    );
    assert!(agent.handle.refused().values().sum::<u64>() >= 2);
    drop(spool);
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_counted_and_one_whose_name_is_not_utf_8_is_taken_like_any_other() {
    use std::os::unix::ffi::OsStrExt;
    use std::sync::atomic::Ordering;
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path());
    let spool = spool(directory.path(), &agent, "ncr-2.1");
    let figures = || {
        let spooled = agent.handle.spooled();
        let read = [&spooled.taken, &spooled.refused, &spooled.documents, &spooled.renamed, &spooled.waiting];
        read.map(|count| count.load(Ordering::Relaxed))
    };
    let odd = |name: &[u8]| directory.path().join("spool").join(std::ffi::OsStr::from_bytes(name));
    std::fs::write(odd(b"d\xffy.xml"), ncr_file(3)).unwrap();
    std::fs::write(odd(b"d\xffz.tmp"), ncr_file(1)).unwrap();
    put(directory.path(), "bad.xml", "<POSLog>");
    let old = std::fs::File::options().write(true).open(directory.path().join("spool/bad.xml")).unwrap();
    let now_ms = u64::try_from(Env::of_this_box().unwrap().wall().0).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms);
    old.set_modified(now - Duration::from_hours(1)).unwrap();
    let (_stop, stopping) = watch::channel(false);
    let mut seen = BTreeMap::new();
    spool.turn(&mut seen, &stopping).await.unwrap();
    assert_eq!(figures(), [0, 0, 0, 1, 2], "what is not finished keeps its name");
    let age = agent.handle.spooled().oldest_age_s.load(Ordering::Relaxed);
    assert!((3600..3700).contains(&age), "{age}");
    spool.turn(&mut seen, &stopping).await.unwrap();
    assert_eq!(figures(), [2, 1, 4, 1, 0]);
    assert_eq!(agent.handle.spooled().oldest_age_s.load(Ordering::Relaxed), 0);
    assert_eq!(counts(&result(directory.path(), "done", "d%FFy.xml")), [3, 0, 0, 0]);
    assert!(names(directory.path(), "failed").contains("bad.xml.result.json"));
    assert!(odd(b"d\xffz.tmp").exists());
    drop(spool);
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_that_is_kept_holds_a_card_number() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path());
    let spool = spool(directory.path(), &agent, "ncr-2.1");
    // Across the end of a stretch that is looked through at once, too.
    let filling = format!("<!--{}-->", "x ".repeat(32 * 1024 - 40));
    let source = ncr_file(2).replace("M&amp;M", "4111 1111 1111 1111").replace("<POSLog", &format!("{filling}<POSLog"));
    put(directory.path(), "day.xml", &source);
    put(directory.path(), "bad.xml", &format!("{}4111111111111111", "x ".repeat(32 * 1024 - 4)));
    turns(&spool).await;
    for (place, name) in [("done", "day.xml"), ("failed", "bad.xml")] {
        for name in [name.to_owned(), format!("{name}.result.json")] {
            let kept = std::fs::read_to_string(directory.path().join("spool").join(place).join(&name)).unwrap();
            assert!(!kept.contains("4111 1111 1111 1111") && !kept.contains("4111111111111111"), "{name}");
        }
    }
    let day = result(directory.path(), "done", "day.xml");
    assert_eq!(day["results"][0]["receipt"]["exceptions"][0], "PAN_MASKED");
    assert!(names(directory.path(), "working").is_empty());
    drop(spool);
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_full_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("spool")).unwrap();
    let (handle, mut inbox) = channel(1, Status::default());
    let config = SpoolConfig {
        directory: directory.path().join("spool"),
        profile: profile("ncr-2.1"),
        poll_interval: Duration::from_millis(1),
        retain: Duration::from_hours(1),
    };
    let spool = Spool::open(config, context(), handle, Env::of_this_box().unwrap()).unwrap();
    put(directory.path(), "day.xml", &ncr_file(1));
    spool.take("day.xml").unwrap();
    let (_stop, stopping) = watch::channel(false);
    let answering = tokio::spawn(async move { spool.answer("day.xml", &stopping).await });
    for refused in [crate::answer::Refused::Full, crate::answer::Refused::Busy, crate::answer::Refused::Stopping] {
        let Some(crate::agent::Request::Submit { documents, reply }) = inbox.requests.recv().await else {
            panic!("a submission")
        };
        assert_eq!(documents.len(), 1);
        reply.send(Err(refused)).unwrap();
    }
    assert_eq!(answering.await.unwrap().unwrap(), None, "a stop leaves the file where it is");
    assert!(names(directory.path(), "working").contains("day.xml"));
}
