//! The spool: a directory into which another system puts files, each of which is taken in and answered beside itself.
//!
//! ```text
//! x.xml -> working/x.xml -> submitted, batch by batch -> done/x.xml.result.json, then done/x.xml     (or failed/)
//! ```
//!
//! Invariants: a file is taken by a rename, only when it did not change between two looks and has no name of an unfinished one. What is in
//! `working/` at a start is read again from its beginning: what was recorded then is a duplicate and answers with its first receipt, so
//! that a crash at any point loses nothing and doubles nothing. The result is synced and renamed before the file moves. A file keeps its
//! name; where that is taken, a `~2` is put after it, so that nothing is overwritten. When the agent is full or busy the spool waits. Memory
//! is bounded by one batch; the answer goes to the disk as it comes. A copy that holds card numbers is written anew, masked.
//!
//! What went in whole is removed from `done/` after `spool.retain`; `failed/` waits for a person. Deliberately not known here: what is in
//! the files. They lie outside `data_dir`, so this is no business of `journal::disk`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use counterfoil_proto::record::{Context, Prepared, Refusal, mask_cards};
use tokio::sync::watch;

use super::{Mapped, Profile, fault, poslog};
use crate::agent::AgentHandle;
use crate::answer::{Outcome, Refused};
use crate::config::SpoolConfig;
use crate::env::Env;
use crate::ingress::reply::{ManyAnswer, Problem};

/// Documents and bytes of one submission; what comes after goes into the next.
const BATCH_DOCUMENTS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a file that is JSON, which is read whole; a larger one is refused.
const JSON_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Files of one look; further ones are for the next.
const FILES_MAX: usize = 1_000;

/// Bytes that are looked through for card numbers at once.
const MASK_BYTES: u64 = 64 * 1024;

/// Files that arrive under these are not finished.
const UNFINISHED: &[&str] = &[".tmp", ".part", ".partial", ".filepart", ".swp", ".result.json"];

/// By what a change of a file is noticed.
pub(super) type Stamp = (u64, Option<SystemTime>);

/// The spool.
#[derive(Clone, Debug)]
pub struct Spool {
    config: SpoolConfig,
    context: Arc<Context>,
    agent: AgentHandle,
    env: Env,
}

/// Whether a file went in whole; `None` where the agent stopped before.
pub(super) type Accepted = Option<bool>;

impl Spool {
    /// Makes the directories where they are missing.
    pub fn open(config: SpoolConfig, context: Context, agent: AgentHandle, env: Env) -> io::Result<Self> {
        for place in ["working", "done", "failed"] {
            fs::create_dir_all(config.directory.join(place))?;
        }
        Ok(Self { config, context: Arc::new(context), agent, env })
    }

    fn place(&self, place: &str, name: &str) -> PathBuf {
        self.config.directory.join(place).join(name)
    }

    /// Takes files in until told to stop.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut seen = BTreeMap::new();
        loop {
            if let Err(error) = self.turn(&mut seen, &stopping).await {
                tracing::warn!(%error, directory = %self.config.directory.display(), "the spool could not go on; it tries again");
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(self.config.poll_interval) => {}
            }
        }
    }

    /// One look: what was left in `working/`, then what is new.
    pub(super) async fn turn(
        &self,
        seen: &mut BTreeMap<String, Stamp>,
        stopping: &watch::Receiver<bool>,
    ) -> io::Result<()> {
        let this = self.clone();
        let before = std::mem::take(seen);
        let (names, now) = blocking(move || {
            this.retire()?;
            let (ready, now) = this.look(&before)?;
            for name in ready {
                this.take(&name)?;
            }
            this.measure()?;
            Ok((this.files("working")?, now))
        })
        .await?;
        *seen = now;
        for (name, _) in names {
            if *stopping.borrow() {
                break;
            }
            if let Some(accepted) = self.answer(&name, stopping).await? {
                let this = self.clone();
                blocking(move || {
                    this.conclude(&name, accepted)?;
                    this.measure()
                })
                .await?;
            }
        }
        Ok(())
    }

    /// The finished files of a place, by name, with what tells that they changed.
    fn files(&self, place: &str) -> io::Result<BTreeMap<String, Stamp>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.config.directory.join(place))? {
            let entry = entry?;
            // Of a symbolic link, which is no file here, the metadata are its own.
            let Ok(metadata) = entry.metadata() else { continue };
            let Some(name) = self.name_of(&entry)? else { continue };
            if is_unfinished(&name) || !metadata.is_file() {
                continue;
            }
            files.insert(name, (metadata.len(), metadata.modified().ok()));
            if files.len() > FILES_MAX {
                files.pop_last();
            }
        }
        Ok(files)
    }

    /// The name of a file; one that is not UTF-8 gets a name that is, with `%` and two digits for each other byte, so that it is taken like
    /// any other. `None` where that name is taken, until it is free.
    fn name_of(&self, entry: &fs::DirEntry) -> io::Result<Option<String>> {
        let given = match entry.file_name().into_string() {
            Ok(name) => return Ok(Some(name)),
            Err(given) => given,
        };
        let mut name = String::new();
        for chunk in given.as_encoded_bytes().utf8_chunks() {
            name.push_str(chunk.valid());
            name.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
        }
        if is_unfinished(&name) || !entry.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Ok(None);
        }
        let path = entry.path().with_file_name(&name);
        if path.exists() {
            tracing::warn!(name, "a spooled file whose name is not UTF-8 waits until its name in UTF-8 is free");
            return Ok(None);
        }
        fs::rename(entry.path(), path)?;
        self.agent.spooled().renamed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(name, "the name of a spooled file was not UTF-8; it is taken under this one");
        Ok(Some(name))
    }

    /// Says how many files wait, and for how long.
    fn measure(&self) -> io::Result<()> {
        let mut waiting = self.files("")?;
        let working = self.files("working")?;
        let count = waiting.len().saturating_add(working.len());
        waiting.extend(working);
        let oldest = waiting.into_values().filter_map(|(_, changed)| changed).min();
        let age = oldest.and_then(|oldest| self.now()?.duration_since(oldest).ok()).unwrap_or_default();
        let spooled = self.agent.spooled();
        spooled.waiting.store(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        spooled.oldest_age_s.store(age.as_secs(), Ordering::Relaxed);
        Ok(())
    }

    fn now(&self) -> Option<SystemTime> {
        let now_ms = u64::try_from(self.env.wall().0).unwrap_or_default();
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(now_ms))
    }

    /// The files that did not change since the look before, and all that there are now.
    pub(super) fn look(&self, before: &BTreeMap<String, Stamp>) -> io::Result<(Vec<String>, BTreeMap<String, Stamp>)> {
        let now = self.files("")?;
        let ready = now.iter().filter(|(name, stamp)| before.get(*name) == Some(stamp));
        Ok((ready.map(|(name, _)| name.clone()).collect(), now))
    }

    /// Takes a file, under a name that no other has had that is still here.
    pub(super) fn take(&self, name: &str) -> io::Result<String> {
        let is_free = |name: &String| {
            let result = format!("{name}.result.json");
            let places =
                ["working", "done", "failed"].map(|place| [self.place(place, name), self.place(place, &result)]);
            places.iter().flatten().all(|path| !path.exists())
        };
        let names = std::iter::once(name.to_owned()).chain((2..=FILES_MAX).map(|count| format!("{name}~{count}")));
        let free = names.into_iter().find(is_free).ok_or(io::ErrorKind::AlreadyExists)?;
        fs::rename(self.place("", name), self.place("working", &free))?;
        sync_dir(&self.config.directory.join("working"))?;
        sync_dir(&self.config.directory)?;
        self.agent.spooled().taken.fetch_add(1, Ordering::Relaxed);
        Ok(free)
    }

    /// Submits what is in a taken file, and writes what became of it, not yet under its name.
    pub(super) async fn answer(&self, name: &str, stopping: &watch::Receiver<bool>) -> io::Result<Accepted> {
        let path = self.place("working", name);
        let profile = self.config.profile.clone();
        let mut source = blocking(move || Source::open(&path, profile)).await?;
        let mut result = Answer::create(&self.place("working", &format!("{name}.result.tmp")), name)?;
        loop {
            let context = Arc::clone(&self.context);
            let (judged, rest) = blocking(move || Ok((source.batch(&context), source))).await?;
            source = rest;
            if judged.is_empty() {
                break;
            }
            let documents: Vec<Prepared> = judged.iter().filter_map(|judged| judged.as_ref().ok()).cloned().collect();
            let Some(outcomes) = self.submit(documents, stopping.clone()).await else { return Ok(None) };
            let mut outcomes = outcomes.into_iter();
            let mut answer = ManyAnswer::default();
            for judged in judged {
                match judged {
                    Ok(_) => outcomes.next().into_iter().for_each(|outcome| answer.push(Ok(outcome))),
                    Err(problem) => {
                        self.agent.count_refused(problem.slug());
                        answer.push(Err(problem));
                    }
                }
            }
            let documents = u64::try_from(answer.results.len()).unwrap_or_default();
            self.agent.spooled().documents.fetch_add(documents, Ordering::Relaxed);
            result.add(answer)?;
        }
        blocking(move || result.finish()).await.map(Some)
    }

    /// Submits, and waits while the agent does not take it; `None` where it stops.
    async fn submit(&self, documents: Vec<Prepared>, mut stopping: watch::Receiver<bool>) -> Option<Vec<Outcome>> {
        if documents.is_empty() {
            return Some(Vec::new());
        }
        loop {
            match self.agent.submit(documents.clone()).await {
                Ok(outcomes) if outcomes.len() == documents.len() => return Some(outcomes),
                Err(Refused::Stopping) => return None,
                // Nobody knows, or not now: the same again is safe.
                Ok(_) | Err(Refused::Busy | Refused::Full | Refused::DrainOnly | Refused::Unanswered) => {}
            }
            let this = self.clone();
            if let Err(error) = blocking(move || this.measure()).await {
                tracing::debug!(%error, "the spool could not be measured");
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return None,
                () = tokio::time::sleep(self.config.poll_interval) => {}
            }
        }
    }

    /// Puts result and file where they belong; the result first.
    pub(super) fn conclude(&self, name: &str, accepted: bool) -> io::Result<()> {
        let place = if accepted { "done" } else { "failed" };
        self.agent.spooled().refused.fetch_add(u64::from(!accepted), Ordering::Relaxed);
        self.publish(name, place)?;
        let (working, kept) = (self.place("working", name), self.place(place, name));
        if mask(&working, None, self.context.mask_13_digits)? {
            let temporary = self.place("working", &format!("{name}.tmp"));
            let mut writer = BufWriter::new(File::create(&temporary)?);
            mask(&working, Some(&mut writer), self.context.mask_13_digits)?;
            writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&temporary, &kept)?;
            sync_dir(&self.config.directory.join(place))?;
            fs::remove_file(&working)?;
            tracing::warn!(name, "a spooled file held card numbers; they are masked in the copy that is kept");
        } else {
            fs::rename(&working, &kept)?;
            sync_dir(&self.config.directory.join(place))?;
        }
        sync_dir(&self.config.directory.join("working"))
    }

    /// Gives the result of a file its name.
    pub(super) fn publish(&self, name: &str, place: &str) -> io::Result<()> {
        let temporary = self.place("working", &format!("{name}.result.tmp"));
        fs::rename(temporary, self.place(place, &format!("{name}.result.json")))?;
        sync_dir(&self.config.directory.join(place))
    }

    /// Removes what has been in `done/` for long enough: counted from its answer.
    fn retire(&self) -> io::Result<()> {
        let Some(now) = self.now() else { return Ok(()) };
        for entry in fs::read_dir(self.config.directory.join("done"))? {
            let entry = entry?;
            let Ok(result) = entry.file_name().into_string() else { continue };
            let Some(name) = result.strip_suffix(".result.json") else { continue };
            let answered = entry.metadata()?.modified()?;
            if now.duration_since(answered).is_ok_and(|age| age > self.config.retain) {
                remove(&self.place("done", name))?;
                remove(&self.place("done", &result))?;
            }
        }
        Ok(())
    }
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') || UNFINISHED.iter().any(|suffix| name.ends_with(suffix))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The documents of a file, batch by batch.
enum Source {
    /// With what the transaction at work still gives.
    Poslog(Box<poslog::Transactions<BufReader<File>>>, poslog::dialect::Dialect, VecDeque<Result<Mapped, Refusal>>),
    Whole(std::vec::IntoIter<Result<Mapped, Refusal>>),
}

impl Source {
    fn open(path: &Path, profile: Profile) -> io::Result<Self> {
        let file = File::open(path)?;
        match profile {
            Profile::Poslog(dialect) => {
                Ok(Self::Poslog(Box::new(poslog::Transactions::new(BufReader::new(file))), dialect, VecDeque::new()))
            }
            profile @ (Profile::Square | Profile::Shopify) => {
                let mut bytes = Vec::new();
                file.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes)?;
                let mapped = if u64::try_from(bytes.len()).is_ok_and(|length| length > JSON_BYTES_MAX) {
                    vec![Err(Refusal::TooLarge(fault("", "too-large", "A file that is JSON has at most 4 MiB")))]
                } else {
                    profile.map(&bytes)
                };
                Ok(Self::Whole(mapped.into_iter()))
            }
        }
    }

    fn next(&mut self) -> Option<Result<Mapped, Refusal>> {
        match self {
            Self::Poslog(transactions, dialect, given) => {
                if given.is_empty() {
                    match transactions.next()? {
                        Ok(transaction) => given.extend(poslog::map(&transaction, dialect)),
                        Err(refusal) => return Some(Err(refusal)),
                    }
                }
                given.pop_front()
            }
            Self::Whole(mapped) => mapped.next(),
        }
    }

    fn batch(&mut self, context: &Context) -> Vec<Result<Prepared, Problem>> {
        let (mut judged, mut bytes) = (Vec::new(), 0_usize);
        while judged.len() < BATCH_DOCUMENTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(mapped) = self.next() else { break };
            let prepared = mapped.and_then(|mapped| mapped.prepare(context));
            bytes = bytes.saturating_add(prepared.as_ref().map_or(0, |prepared| prepared.document.len()));
            judged.push(prepared.map_err(|refusal| Problem::of_refusal(&refusal)));
        }
        judged
    }
}

/// The result of a file, written while it comes.
struct Answer {
    writer: BufWriter<File>,
    counts: ManyAnswer,
    results: usize,
}

impl Answer {
    fn create(path: &Path, name: &str) -> io::Result<Self> {
        let mut writer = BufWriter::new(File::create(path)?);
        write!(writer, "{{\"file\":{},\"results\":[", serde_json::Value::from(name))?;
        Ok(Self { writer, counts: ManyAnswer::default(), results: 0 })
    }

    fn add(&mut self, answer: ManyAnswer) -> io::Result<()> {
        self.counts.recorded += answer.recorded;
        self.counts.duplicates += answer.duplicates;
        self.counts.refused += answer.refused;
        self.counts.conflicts += answer.conflicts;
        for mut result in answer.results {
            result.index = self.results;
            self.writer.write_all(if self.results == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut self.writer, &result)?;
            self.results += 1;
        }
        Ok(())
    }

    /// Ends and syncs it; whether the file went in whole.
    fn finish(mut self) -> io::Result<bool> {
        let accepted = self.counts.refused == 0 && self.results > 0;
        let ManyAnswer { recorded, duplicates, refused, conflicts, .. } = self.counts;
        writeln!(
            self.writer,
            "\n],\"recorded\":{recorded},\"duplicates\":{duplicates},\"refused\":{refused},\"conflicts\":{conflicts},\"accepted\":{accepted}}}"
        )?;
        self.writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(accepted)
    }
}

/// Whether a file holds card numbers; writes it with them masked where it is told to. It is looked through in stretches that end between
/// words, so that none is cut in two.
fn mask(path: &Path, mut to: Option<&mut BufWriter<File>>, mask_13_digits: bool) -> io::Result<bool> {
    let mut source = File::open(path)?;
    let (mut held, mut found) = (Vec::new(), false);
    loop {
        let read = (&mut source).take(MASK_BYTES).read_to_end(&mut held)?;
        let ends_word = |byte: &u8| byte.is_ascii() && !byte.is_ascii_digit() && !matches!(byte, b' ' | b'-' | b'\t');
        let cut =
            if read == 0 { held.len() } else { held.iter().rposition(ends_word).map_or(held.len(), |place| place + 1) };
        let rest = held.split_off(cut);
        let masked = mask_cards(&String::from_utf8_lossy(&held), mask_13_digits);
        found |= masked.is_some();
        if let Some(writer) = &mut to {
            writer.write_all(masked.as_deref().map_or(held.as_slice(), str::as_bytes))?;
        } else if found {
            return Ok(true);
        }
        held = rest;
        if read == 0 {
            return Ok(found);
        }
    }
}
