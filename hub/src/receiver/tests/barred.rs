//! Nothing is taken from an agent whose identity was revoked, and it is told so.

use super::*;

#[tokio::test]
async fn nothing_is_taken_from_an_agent_that_is_barred_and_everything_once_it_is_let_in_again() {
    let mut rig = Rig::new().await;
    let (bar, barred) = watch::channel(Barred::default());
    rig.receiver = rig.receiver.barring(barred);
    rig.take(vec![hello("a", 1), hello("b", 1), batch("a", 1, &records(1, 1))]).await;
    bar.send_replace(Arc::new([source("a")].into_iter().collect()));
    let presence = message("a", Up::State, b"{}".to_vec());
    let said =
        rig.take(vec![hello("a", 4), batch("a", 2, &records(2, 3)), presence, batch("b", 1, &records(1, 1))]).await;
    assert_eq!(nacks(&said), [(0, NackReason::Revoked), (2, NackReason::Revoked)]);
    assert_eq!(acks(&said), [1], "of the other agent");
    assert!(!said.iter().any(|down| matches!(down, Down::Welcome(_))));
    assert_eq!(rig.count("SELECT COUNT(*) FROM records").await, 2);
    assert_eq!(
        (rig.counted(|counters| &counters.turned_away), rig.count("SELECT COUNT(*) FROM rejects").await),
        (3, 0)
    );
    bar.send_replace(Barred::default());
    let said = rig.take(vec![batch("a", 2, &records(2, 3))]).await;
    assert_eq!(acks(&said), [4]);
}
