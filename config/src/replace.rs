//! Files that are there whole, or as they were before.
//!
//! Invariant: what is written is synced before it gets its name, and the name before anybody is told. Not known here: what is in the files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Its owner alone: 0600.
    ByOwner,
    /// Everybody: 0644.
    ByAll,
}

/// Writes a file, in place of the one that may be there. Its directory is made (0700) where it is missing. What root writes belongs to
/// whom the directory belongs, so that a service finds what a person made for it.
pub fn replace(path: &Path, bytes: &[u8], readable: Readable) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new~");
    let new = directory.join(name);
    let mode = match readable {
        Readable::ByOwner => 0o600,
        Readable::ByAll => 0o644,
    };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    own_like(directory, &file)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(&new, path)
}

/// Gives a synced file another name, in place of the file that may have it.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    match directory.parent() {
        Some(parent) if parent.is_dir() => own_like(parent, &File::open(directory)?),
        Some(_) | None => Ok(()),
    }
}

/// Only root can give files away; for everybody else what they make is theirs.
fn own_like(directory: &Path, file: &File) -> io::Result<()> {
    let (wanted, found) = (std::fs::metadata(directory)?, file.metadata()?);
    if found.uid() == 0 && wanted.uid() != 0 {
        fchown(file, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    Ok(())
}
