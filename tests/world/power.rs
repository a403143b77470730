//! The power rig: an agent on a disk that forgets what was not flushed, tills that remember what they were told, and the power cut again
//! and again.
//!
//! `Medium` is the disk, `serve` the process that shows it to the kernel, `Drive` the block device and file system on it, `Place` where all
//! this stands, `rig` the cuts and the judgement. Invariant: at a cut nothing is confirmed from one operation of the disk to the next; the agent is
//! dead before it could see that the disk fails, as on a machine without power. So whatever receipt a till has is a promise that
//! the agent made with the power on.

mod drive;
mod medium;
mod place;
mod rig;
mod serve;

pub use medium::Keep;
pub use rig::{Figures, Options, cuts, lies};
pub use serve::serve;

/// What a run came to.
#[derive(Debug)]
pub enum Outcome {
    /// The machine does not allow it, and why.
    Skipped(String),
    /// It ran to its end.
    Ran(Figures),
}

/// Whether this machine lets us build such a disk: tried, not guessed.
pub async fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("block devices and mounts need root".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !std::path::Path::new(device).exists() {
            return Err(format!("{device} is missing"));
        }
    }
    let place = place::Place::take().await?;
    let drive = drive::Drive::new(&place, 16 * 1024 * 1024).await?;
    drop(drive);
    Ok(())
}
