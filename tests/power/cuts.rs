//! Power cuts, a few dozen, where the machine allows them (`--bin power` for more); and the proof that the rig can fail.
//!
//! One test after the other: block devices and mounts are the machine's, and the rig waits for its turn anyway.

use std::io::Write as _;

use world::power::{Options, Outcome, cuts, lies};

/// Says loudly that nothing was shown.
fn figures(outcome: Outcome) -> Option<world::power::Figures> {
    match outcome {
        Outcome::Ran(figures) => Some(figures),
        Outcome::Skipped(reason) => {
            // Past the harness, which shows what a test prints only when it fails.
            let notice =
                format!("\n*** SKIPPED: no power was cut, because this machine does not allow it: {reason} ***\n");
            std::io::stderr().write_all(notice.as_bytes()).expect("stderr takes a line");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_receipt_is_lost_at_a_power_cut_and_a_disk_that_lies_is_found_out() {
    let options = Options { cuts: 36, seed: 1, reclaiming: false, progress: |line| println!("{line}") };
    let Some(lying) = figures(lies(&options).await) else { return };
    assert!(lying.lost > 0, "a disk that lied lost nothing, so the rig sees nothing\n{}", lying.text());
    assert!(lying.named.iter().any(|code| code == "ROLLBACK"), "the hub does not name it\n{}", lying.text());
    assert!(lying.report.agrees(), "{}", lying.text());
    let Some(honest) = figures(cuts(&options).await) else { return };
    assert_eq!(honest.cuts, options.cuts, "{}", honest.text());
    assert!(honest.is_clean(), "{}", honest.text());
    // Files of segments that were given back are written again: what they held before must never be read as new.
    let options = Options { cuts: 12, reclaiming: true, ..options };
    let Some(reclaiming) = figures(cuts(&options).await) else { return };
    assert_eq!(reclaiming.cuts, options.cuts, "{}", reclaiming.text());
    assert!(reclaiming.is_clean() && reclaiming.given_back > 0, "{}", reclaiming.text());
}
