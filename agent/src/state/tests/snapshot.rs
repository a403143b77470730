//! Snapshots: whole or not at all, in bounded parts.

use super::*;
use crate::state::limits::SNAPSHOT_PART_BYTES_MIN;
use crate::state::{PartHeader, RestoreError, read_part};
use counterfoil_proto::record::flag;

fn busy_state() -> State {
    let mut journal = Journal::new();
    for number in 0..800 {
        journal.append(flagged(sale(&format!("{}", number % 7), number, 600), &[flag::TOTALS_MISMATCH]));
        journal.append(movement(vec![change(&format!("item-{number:036}"), "EA", "1"), change("x", "KGM", "0.001")]));
    }
    journal.append(close(None, DAY));
    journal.state()
}

#[test]
fn parts_are_bounded_and_restore_in_any_order() {
    let state = busy_state();
    let mut parts = state.snapshot([9; 16], 0);
    assert!(parts.len() > 2, "the test needs several parts");
    assert!(parts.iter().all(|part| part.len() <= SNAPSHOT_PART_BYTES_MIN));
    let count = u32::try_from(parts.len()).unwrap();
    assert_eq!(read_part(&parts[1]), Ok(PartHeader { snapshot_id: [9; 16], part: 1, parts: count }));
    parts.reverse();
    let mut restored = State::in_memory();
    assert_eq!(restored.restore(&parts), Ok(state.applied()));
    assert_eq!(restored.tables, state.tables);
    assert_eq!(answers(&restored), answers(&state));
    assert_eq!(state.snapshot([9; 16], usize::MAX).len(), 1);
    assert_eq!(restored.snapshot([9; 16], 0), state.snapshot([9; 16], 0));
}

#[test]
fn an_empty_state_has_a_snapshot_too() {
    let parts = State::in_memory().snapshot([1; 16], 0);
    assert_eq!(parts.len(), 1);
    let mut restored = busy_state();
    assert_eq!(restored.restore(&parts), Ok(None));
    assert_eq!(restored.tables, State::in_memory().tables);
}

#[test]
fn damaged_missing_doubled_and_mixed_parts_are_refused_and_change_nothing() {
    let state = busy_state();
    let parts = state.snapshot([9; 16], 0);
    let other = state.snapshot([8; 16], 0);
    let mut restored = State::in_memory();
    let mut refuse = |parts: &[Vec<u8>], expected| {
        assert_eq!(restored.restore(parts), Err(expected));
        assert_eq!(restored.tables, State::in_memory().tables);
    };
    refuse(&[], RestoreError::Incomplete);
    refuse(&parts[1..], RestoreError::Incomplete);
    refuse(&[&parts[..], &parts[..1]].concat(), RestoreError::Incomplete);
    refuse(&[&parts[..1], &parts[..parts.len() - 1]].concat(), RestoreError::Incomplete);
    refuse(&[&other[..1], &parts[1..]].concat(), RestoreError::Incomplete);
    let part = &parts[0];
    for index in 0..part.len() {
        let mut damaged = part.clone();
        damaged[index] ^= 0x10;
        assert_eq!(read_part(&damaged), Err(RestoreError::Damaged), "byte {index}");
    }
    for length in (0..part.len()).step_by(7) {
        assert_eq!(read_part(&part[..length]), Err(RestoreError::Damaged), "length {length}");
    }
    let mut later = part[..part.len() - 4].to_vec();
    later[4] = 3;
    let crc = crc32c::crc32c(&later);
    later.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(read_part(&later), Err(RestoreError::Version(3)));
}
