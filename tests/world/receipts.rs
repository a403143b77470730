//! A till's own durable record of what it was told is safe: the stub book that the ledger is held against.
//!
//! One JSON line for each receipt, appended, synced before the documents count as done. Invariant: a receipt that was synced here
//! is never forgotten; a line that a crash tore is cut off, and its document sent again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::sync_file;

/// Receipts between two syncs of the file; fewer make the till slow, more make it send more again after a crash.
const SYNC_EVERY: usize = 64;

/// What a till was told of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stub {
    /// The document's identity.
    pub key: String,
    /// The agent's incarnation.
    pub epoch: String,
    /// The lane.
    pub lane: String,
    /// The place in the lane.
    pub seq: u64,
    /// The content digest.
    pub digest: String,
}

/// A till's record of receipts.
#[derive(Debug)]
pub struct ReceiptBook {
    path: PathBuf,
    file: File,
    stubs: BTreeMap<String, Stub>,
    unsynced: usize,
}

/// The file failed.
#[derive(Debug, thiserror::Error)]
#[error("The till's record of receipts {path} failed: {source}", path = path.display())]
pub struct BookError {
    path: PathBuf,
    source: std::io::Error,
}

impl ReceiptBook {
    /// Opens the book at `path`, with what it holds from before.
    pub fn open(path: &Path) -> Result<Self, BookError> {
        let failed = |source| BookError { path: path.to_owned(), source };
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let mut stubs = BTreeMap::new();
        let mut whole = 0_u64;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let stub = line.ends_with(b"\n").then(|| serde_json::from_slice::<Stub>(line).ok()).flatten();
            let Some(stub) = stub else { break };
            whole += line.len() as u64;
            stubs.insert(stub.key.clone(), stub);
        }
        file.set_len(whole).map_err(failed)?;
        sync_file(&file, path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, stubs, unsynced: 0 })
    }

    /// Whether the document is known to be safe.
    pub fn has(&self, key: &str) -> bool {
        self.stubs.contains_key(key)
    }

    /// Writes receipts down; synced when enough have come together. Says how many are synced now.
    pub fn put(&mut self, stubs: Vec<Stub>) -> Result<usize, BookError> {
        let mut text = Vec::new();
        for stub in stubs {
            serde_json::to_writer(&mut text, &stub).map_err(|error| self.failed(error.into()))?;
            text.push(b'\n');
            self.unsynced += 1;
            self.stubs.insert(stub.key.clone(), stub);
        }
        self.file.write_all(&text).map_err(|source| self.failed(source))?;
        if self.unsynced >= SYNC_EVERY { self.sync() } else { Ok(0) }
    }

    /// Syncs what was written. Says how many receipts that made safe.
    pub fn sync(&mut self) -> Result<usize, BookError> {
        if self.unsynced == 0 {
            return Ok(0);
        }
        self.file.sync_data().map_err(|source| self.failed(source))?;
        Ok(std::mem::take(&mut self.unsynced))
    }

    /// All receipts, by key.
    pub const fn stubs(&self) -> &BTreeMap<String, Stub> {
        &self.stubs
    }

    fn failed(&self, source: std::io::Error) -> BookError {
        BookError { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stub(number: u64) -> Stub {
        let [epoch, lane, digest] = ["e", "trade", "d"].map(str::to_owned);
        Stub { key: format!("k{number}"), epoch, lane, seq: number, digest }
    }

    #[test]
    fn what_was_synced_is_there_again_and_a_torn_line_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("book");
        let mut book = ReceiptBook::open(&path).unwrap();
        assert_eq!(book.put((1..=63).map(stub).collect()).unwrap(), 0);
        assert_eq!(book.put(vec![stub(64)]).unwrap(), 64);
        drop(book);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"key\":\"k65\",\"epo").unwrap();
        let mut book = ReceiptBook::open(&path).unwrap();
        assert_eq!(book.stubs().len(), 64);
        assert!(book.has("k64") && !book.has("k65"));
        book.put(vec![stub(65)]).unwrap();
        assert_eq!(book.sync().unwrap(), 1);
        assert_eq!(ReceiptBook::open(&path).unwrap().stubs().len(), 65);
    }
}
