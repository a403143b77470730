//! Opening journal and state, and bringing the state up to the journal.
//!
//! Invariant: what stands here is the ordinary start path, after a clean stop as after a power cut; when it returns, the state reflects every
//! record of the journal. A state store that cannot be used or does not agree costs time, never a record and never an answer.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use counterfoil_proto::id::Seq;
use tracing::{info, warn};

use super::owner::Ground;
use crate::config::Config;
use crate::env::Env;
use crate::error::ExitError;
use crate::journal::{self, Frame, Journal, JournalConfig, OpenError, Opened, OsDisk, Position, ReadError, Replayed};
use crate::state::{self, State};

/// Directory of the state store below the data directory.
const STATE_DIR: &str = "state";
/// Where damaged bytes go; shared with the journal.
const QUARANTINE_DIR: &str = "quarantine";

/// Journal and state, brought together.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) journal: Journal,
    pub(super) opened: Opened,
    pub(super) state: State,
    pub(super) disk: Arc<dyn journal::Disk>,
}

impl From<OpenError> for ExitError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Journal(error) => Self::Disk(Box::new(error)),
            OpenError::Locked { .. }
            | OpenError::ForeignSource { .. }
            | OpenError::Version { .. }
            | OpenError::Config { .. } => Self::DataDir(crate::error::chain(&error)),
        }
    }
}

/// The configured data directory; the bytes that are read and written there are counted in `moved`.
pub(super) fn ground(config: &Config, moved: Arc<AtomicU64>) -> Result<Ground, ExitError> {
    let disk = OsDisk::new(&config.data_dir).map_err(|error| ExitError::Disk(Box::new(error)))?.counting(moved);
    let limits = JournalConfig {
        segment_bytes: config.journal.segment_bytes,
        bytes_max: config.journal.high_water_bytes,
        free_bytes_min: config.journal.free_bytes_min,
        format_write: config.journal.format_write,
        retain_ms: u64::try_from(config.journal.retain.as_millis()).unwrap_or(u64::MAX),
        ..JournalConfig::default()
    };
    Ok(Ground { disk: Arc::new(disk), limits, shelf: None })
}

/// Opens what is on the disk, or makes it.
pub(super) fn open(ground: Ground, config: &Config, env: &Env) -> Result<Start, ExitError> {
    let Ground { disk, limits, shelf } = ground;
    let nonce = u64::from_le_bytes(env.random_bytes()?);
    let (mut journal, mut opened) = Journal::open(Arc::clone(&disk), limits, &config.source, nonce)?;
    report(&opened);
    let found = match shelf {
        Some(shelf) => State::on_shelf(shelf),
        None => State::open(&config.data_dir.join(STATE_DIR), &config.data_dir.join(QUARANTINE_DIR)),
    };
    let mut state = found.state;
    if let Some(damaged) = &found.damaged {
        warn!(reason = %damaged.reason, quarantined = ?damaged.quarantined, "state store not usable, rebuilding it from the journal");
    }
    let from = match found.mark {
        Some(mark) if agrees(&state, mark, &journal, &opened) => replay_start(mark, &opened),
        Some(_) => {
            let quarantined = state.reject(&config.data_dir.join(QUARANTINE_DIR));
            warn!(?quarantined, "state store does not agree with the journal, rebuilding it");
            restore(&mut state, &journal)?
        }
        None => restore(&mut state, &journal)?,
    };
    let replayed = replay(&mut state, &mut journal, &mut opened, from)?;
    info!(%from, replayed, end = %journal.end(), "state reflects the journal");
    Ok(Start { journal, opened, state, disk })
}

fn report(opened: &Opened) {
    if opened.created {
        info!("new journal made");
    }
    if let Some(cut) = &opened.tail_cut {
        warn!(bytes = cut.bytes, records = cut.records.len(), quarantined = ?cut.quarantined, "journal tail cut");
    }
    report_damage(&opened.damage);
    for (key, last) in &opened.behind_hub {
        warn!(epoch = %key.epoch, lane = %key.lane, hub_stored = %last, "the hub has more than this disk: it lied about a sync, or was replaced");
    }
}

fn report_damage(damage: &[journal::Damage]) {
    for damage in damage {
        warn!(segment = damage.segment, bytes = damage.bytes, what = damage.what, gone = ?damage.gone, "journal damage");
    }
}

/// What the state reflects, as a checkpoint states it beside the position: the epoch of its last record, and the chains of
/// that epoch's lanes.
pub(super) fn witness(journal: &Journal) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let epochs = journal.lanes();
    if let Some(newest) = epochs.last() {
        hasher.update(&newest.epoch.0);
        for lane in &newest.lanes {
            hasher.update(&[lane.lane.code()]);
            hasher.update(&lane.last.0.to_le_bytes());
            hasher.update(&lane.after.map_or([0; 32], |chain| chain.0));
        }
    }
    *hasher.finalize().as_bytes()
}

/// A state may lag behind its journal, which replay mends. It does not agree where it is ahead, or where it ends
/// exactly where the journal does and the chains differ.
fn agrees(state: &State, mark: state::Mark, journal: &Journal, opened: &Opened) -> bool {
    let epochs = journal.lanes();
    let last = |key: counterfoil_proto::id::LaneKey| {
        let heads = epochs.iter().find(|view| view.epoch == key.epoch)?;
        Some(heads.lanes.iter().find(|lane| lane.lane == key.lane).map_or(Seq::NONE, |lane| lane.last))
    };
    let is_ahead = state.lane_heads().any(|(key, seq)| match last(key) {
        Some(journal_last) => seq > journal_last,
        // Epochs that were given back are no longer in the journal; the state's newest cannot be among them.
        None => state.live_epoch() == Some(key.epoch),
    });
    let end = if opened.rewritten_bytes == 0 { opened.end } else { Position::START };
    let ends_there = mark.position == end.0;
    let differs = ends_there && mark.witness != witness(journal);
    !is_ahead && !differs
}

/// A tail that was rewritten has new positions: the replay then starts with the segment of the mark, and what is folded
/// already is passed over.
fn replay_start(mark: state::Mark, opened: &Opened) -> Position {
    let position = Position(mark.position);
    let is_exact = opened.clean || (opened.rewritten_bytes == 0 && position <= opened.end && opened.tail_cut.is_none());
    if is_exact { position } else { Position::new(position.segment(), 0) }
}

fn restore(state: &mut State, journal: &Journal) -> Result<Position, ExitError> {
    let Some(from) = journal.snapshot() else { return Ok(Position::START) };
    let mut parts = Vec::new();
    for entry in journal.replay(from) {
        match entry.map_err(read_failed)? {
            Replayed::Frame { frame: Frame::Local { part, parts: count, bytes }, .. } => {
                parts.push(bytes);
                if part.saturating_add(1) == count {
                    break;
                }
            }
            Replayed::Frame { frame: Frame::Record { .. }, .. } | Replayed::Damaged { .. } => {}
        }
    }
    match state.restore(&parts) {
        Ok(applied) => {
            info!(%from, parts = parts.len(), "state restored from the journal's snapshot");
            Ok(applied.map_or(Position::START, |applied| Position::new(Position(applied).segment(), 0)))
        }
        Err(error) => {
            warn!(%error, "the journal's snapshot is not usable; folding everything that is retained");
            Ok(Position::START)
        }
    }
}

fn replay(state: &mut State, journal: &mut Journal, opened: &mut Opened, from: Position) -> Result<u64, ExitError> {
    let mut replayed = 0_u64;
    let mut damaged = Vec::new();
    for entry in journal.replay(from) {
        match entry.map_err(read_failed)? {
            Replayed::Frame { position, frame: Frame::Record { key, stored }, .. } => {
                state.apply_stored(position.0, key, &stored);
                replayed = replayed.saturating_add(1);
                if replayed.is_multiple_of(100_000) {
                    info!(replayed, "folding the journal into the state");
                }
            }
            Replayed::Frame { frame: Frame::Local { .. }, .. } => {}
            Replayed::Damaged { segment } => damaged.push(segment),
        }
    }
    for segment in damaged {
        let found = journal.handle_damage(segment).map_err(|error| ExitError::Disk(Box::new(error)))?;
        report_damage(&found);
        opened.damage.extend(found);
    }
    Ok(replayed)
}

fn read_failed(error: ReadError) -> ExitError {
    ExitError::Disk(Box::new(error))
}
