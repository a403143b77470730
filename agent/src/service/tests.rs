//! What is said, and what has to happen before.

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::agent::{Inbox, Request, channel};
use crate::answer::LaneStatus;

/// No test waits for longer.
const AT_MOST: Duration = Duration::from_secs(30);

/// What is said, one state at a time.
fn sayer() -> (impl Fn(&[NotifyState<'_>]) + Send, mpsc::Receiver<String>) {
    let (said, heard) = mpsc::channel(64);
    let say = move |states: &[NotifyState<'_>]| {
        for state in states {
            said.try_send(state.to_string()).unwrap_or_default();
        }
    };
    (say, heard)
}

async fn probe(inbox: &mut Inbox) -> crate::agent::Reply<()> {
    let Request::Probe { reply } = timeout(AT_MOST, inbox.requests.recv()).await.unwrap().unwrap() else {
        panic!("a probe was due");
    };
    reply
}

#[tokio::test(flavor = "current_thread")]
async fn the_watchdog_is_fed_by_completed_test_commits_and_by_nothing_else() {
    let (handle, mut inbox) = channel(4, Status::default());
    let (say, mut heard) = sayer();
    let attending = tokio::spawn(attend(handle, Some(Duration::from_millis(3)), say));
    for _ in 0..3 {
        let reply = probe(&mut inbox).await;
        // Three times as long as the watchdog waits: who is not answered feeds nothing, and asks no second time.
        assert!(timeout(Duration::from_millis(9), inbox.requests.recv()).await.is_err());
        assert!(heard.try_recv().is_err());
        reply.send(Ok(())).unwrap();
        assert_eq!(timeout(AT_MOST, heard.recv()).await.unwrap().unwrap(), "WATCHDOG=1");
    }
    // A test commit that failed has no answer, and feeds nothing.
    drop(probe(&mut inbox).await);
    timeout(AT_MOST, attending).await.unwrap().unwrap();
    assert_eq!(heard.recv().await, None);
}

#[test]
fn a_recovery_gets_more_time_only_while_it_moves_bytes() {
    let mut seen = None;
    assert_eq!(advanced(&mut seen, 0).as_deref(), Some("Reading the journal: 0 MiB so far"));
    assert_eq!(advanced(&mut seen, 0), None);
    assert_eq!(advanced(&mut seen, 9 << 20).as_deref(), Some("Reading the journal: 9 MiB so far"));
    assert_eq!(advanced(&mut seen, 9 << 20), None);
}

#[test]
fn how_it_goes_is_said_in_words() {
    let mut status = Status { store_id: "0042".into(), ..Status::default() };
    assert_eq!(in_words(&status), "Taking sales of store 0042; no connection to the broker; nothing waits");
    status.uplink.connected = true;
    status.mode = "full".into();
    for (age, words) in [
        (None, "7 records wait"),
        (Some(180), "7 records wait, the oldest for 3 minutes"),
        (Some(3 * 3_600), "7 records wait, the oldest for 3 hours"),
        (Some(30 * 86_400), "7 records wait, the oldest for 30 days"),
    ] {
        let lane = LaneStatus { waiting: 7, oldest_unsent_age_s: age, ..LaneStatus::default() };
        status.lanes.insert("trade".into(), lane);
        let hub = "the broker is there, the hub does not answer";
        assert_eq!(in_words(&status), format!("DISK FULL, tills are told to come again; {hub}; {words}"));
    }
    status.uplink.welcomed = true;
    status.mode = "drain_only".into();
    assert!(in_words(&status).starts_with("DISK FAILED repeatedly, only delivering what is there; the hub answers; "));
}
