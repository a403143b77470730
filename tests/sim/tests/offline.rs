//! Thirty days without the hub: tills notice nothing, memory stays flat, and on return positions come first and nothing is lost.

use counterfoil_sim::offline::{DAYS, Offline, SALES_A_DAY};
use counterfoil_sim::say;

/// KiB of resident memory that the days after the first two may add. The filter of a sealed segment takes 10 bits per sale, the state
/// grows with items and days, not with sales: a copy of the backlog would take 15 MiB.
const GROWTH_KIB_MAX: u64 = 6 * 1024;

/// Resident memory of this process, which runs one test.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says how a process is");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("with its resident memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("in KiB")
}

#[test]
fn thirty_days_offline_lose_nothing_and_take_no_memory() {
    let directory = tempfile::tempdir().expect("a directory for the journal");
    let mut offline = Offline::begin(directory.path());
    let mut settled_kib = 0;
    for day in 1..=DAYS {
        offline.sell_for_a_day(day);
        if day == 2 {
            settled_kib = resident_kib();
        }
    }
    let grown_kib = resident_kib().saturating_sub(settled_kib);
    let told = offline.told();
    assert_eq!(told, DAYS * SALES_A_DAY, "every till was told that its sale is safe");
    let back = offline.come_back();
    say(&format!(
        "{DAYS} days, {told} sales, {grown_kib} KiB more after the second day, back in {} batches",
        back.batches
    ));
    assert!(grown_kib <= GROWTH_KIB_MAX, "memory is flat: {grown_kib} KiB more");
    assert!(back.positions_first, "positions come before the backlog");
    assert_eq!(back.missing, 0, "nothing is lost");
    assert_eq!(back.documents, told, "nothing is doubled");
}
