//! What is looked at when everything is healed and drained: what the tills were told against what the hub has.
//!
//! Invariant: the oracle is the tills' and the simulator's own; of the ledger only answers are used. What may be missing, and which exception may
//! be there, follows from what the boxes suffered and from nothing else.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil_hub::ledger::{EntryView, ExceptionFilter, ExceptionView, Ledger, PageQuery, SqlLedger};
use counterfoil_proto::id::{Digest, LaneKey, RecordKey, Seq, SeqRange, Source};
use counterfoil_proto::record::{Kind, Record, flag};
use serde_json::Value;

use crate::hub::{Served, finish};
use crate::plan::Fault;
use crate::store::Past;
use crate::till::{DAY, Heard};
use crate::world::World;

/// What the hub has in the end.
struct Ending {
    ledger: SqlLedger,
    entries: Vec<EntryView>,
    exceptions: Vec<ExceptionView>,
    /// Ranges that exceptions name.
    gone: Vec<(Source, LaneKey, SeqRange)>,
    /// Sources of which damage is recorded whose extent nobody knows.
    end_unknown: BTreeSet<Source>,
    delivered: BTreeSet<(String, String, Digest)>,
}

impl World {
    /// Whether nothing is under way any more.
    pub(crate) fn is_drained(&self) -> bool {
        let answered = self.tills.all.iter().all(|till| till.pending.is_none());
        answered && (0..self.boxes.len()).all(|index| self.has_drained(index)) && self.hubs.is_posted()
    }

    fn has_drained(&self, index: usize) -> bool {
        self.boxes[index].process.as_ref().is_some_and(|process| process.waiting.is_empty())
            && self.undrained(index).is_empty()
    }

    /// Heads of a box that the hub has not reached. Of one that was copied another box may have reached them.
    fn undrained(&self, index: usize) -> Vec<RecordKey> {
        let Some(process) = &self.boxes[index].process else { return Vec::new() };
        let source = &self.boxes[index].source;
        let mut books = self.hubs.books.get();
        let views = process.reader.lanes();
        let heads = views.iter().flat_map(|view| {
            view.lanes.iter().map(|lane| RecordKey { epoch: view.epoch, lane: lane.lane, seq: lane.last })
        });
        let told = |lane: LaneKey| process.told.get(&lane).copied().unwrap_or_default();
        let is_own = |head: &RecordKey| !self.is_copied(source) || told(head.lane_key()) >= head.seq;
        heads.filter(|head| !(is_own(head) && books.covers(source, head.lane_key(), head.seq))).collect()
    }

    /// What still waits, for a person.
    pub(crate) fn what_waits(&self) -> String {
        let tills = self.tills.all.iter().filter(|till| till.pending.is_some()).map(|till| till.name.as_str());
        let tills: Vec<&str> = tills.collect();
        let boxes: Vec<usize> = (0..self.boxes.len()).filter(|index| !self.has_drained(*index)).collect();
        let down: Vec<usize> = (0..self.boxes.len()).filter(|index| self.boxes[*index].process.is_none()).collect();
        let heads: Vec<RecordKey> = boxes.iter().flat_map(|index| self.undrained(*index)).collect();
        let posted = self.hubs.is_posted();
        format!("tills {tills:?}, boxes {boxes:?} (down {down:?}, heads {heads:?}), posted {posted}")
    }

    /// Compares everything.
    pub(crate) fn judge(&mut self) {
        let ending = self.ending();
        self.check_downstream(&ending);
        self.check_books(&ending);
        self.check_documents(&ending);
        self.check_totals(&ending);
        self.check_exceptions(&ending);
        for entry in &ending.entries {
            self.trace.note(entry.position, &format!("{} {:?} {}", entry.source, entry.key, entry.record_digest));
        }
    }

    fn ending(&self) -> Ending {
        let ledger = self.hubs.final_ledger();
        let query = PageQuery { limit: 1_000_000, ..PageQuery::default() };
        let mut entries = Vec::new();
        let mut after = None;
        loop {
            let page = finish(ledger.records(&PageQuery { after, ..query.clone() })).expect("records can be read");
            let is_last = page.at_end || page.entries.is_empty();
            entries.extend(page.entries);
            after = Some(page.next);
            if is_last {
                break;
            }
        }
        let filter = ExceptionFilter { limit: 1_000_000, ..ExceptionFilter::default() };
        let exceptions = finish(ledger.exceptions(&filter)).expect("exceptions can be read");
        let source = |exception: &ExceptionView| self.source(&exception.store_id, &exception.agent_id);
        let gone = exceptions.iter().filter(|exception| exception.code == flag::GONE).filter_map(|exception| {
            let range = range_of(&exception.detail)?;
            Some((source(exception)?, exception.key.lane_key(), range))
        });
        let mut gone: Vec<_> = gone.collect();
        let mut end_unknown = BTreeSet::new();
        let mut delivered = BTreeSet::new();
        for entry in &entries {
            let Ok(record) = Record::decode(&entry.bytes) else { continue };
            if let Some(identity) = &record.envelope.identity {
                let store = entry.source.store_id.to_string();
                delivered.insert((store, identity.clone(), record.envelope.content_digest));
            }
            let document = serde_json::from_slice::<Value>(&record.document).unwrap_or_default();
            let is_open = document.get("end_unknown").and_then(Value::as_bool) == Some(true);
            if record.kind == Kind::JOURNAL_DAMAGE {
                let named =
                    document.get("gone").and_then(Value::as_array).into_iter().flatten().filter_map(named_range);
                gone.extend(named.map(|(lane, range)| (entry.source.clone(), lane, range)));
            }
            if record.kind == Kind::TAIL_CUT || (record.kind == Kind::JOURNAL_DAMAGE && is_open) {
                end_unknown.insert(entry.source.clone());
            }
        }
        Ending { ledger, entries, exceptions, gone, end_unknown, delivered }
    }

    fn source(&self, store: &str, agent: &str) -> Option<Source> {
        let is_it = |source: &&Source| source.store_id.as_str() == store && source.agent_id.as_str() == agent;
        self.boxes.iter().map(|store| &store.source).find(is_it).cloned()
    }

    /// Nothing appeared at or below a position that was served, and nothing was applied twice.
    fn check_downstream(&mut self, ending: &Ending) {
        let entries = ending.entries.iter();
        let now = entries.map(|entry| Served {
            position: entry.position,
            source: entry.source.clone(),
            key: entry.key,
            digest: entry.record_digest,
        });
        let now: Vec<Served> = now.collect();
        let Ok(mut downstream) = self.hubs.downstream.lock() else { return };
        let mut findings = std::mem::take(&mut downstream.findings);
        if let Some((was, is)) = downstream.served.iter().zip(&now).find(|(was, is)| was != is) {
            findings.push(format!("positions: {} was served as {:?}, and is {:?}", was.position, was.key, is.key));
        }
        drop(downstream);
        let mut seen = BTreeSet::new();
        for served in &now {
            if !seen.insert((served.source.clone(), served.key, served.digest)) {
                findings.push(format!("positions: {} {:?} has two", served.source, served.key));
            }
        }
        for finding in findings {
            self.find(finding);
        }
    }

    /// What was committed is there, and of two records under one number both are, and an exception.
    fn check_books(&mut self, ending: &Ending) {
        let there: BTreeSet<(Source, RecordKey, Digest)> =
            ending.entries.iter().map(|entry| (entry.source.clone(), entry.key, entry.record_digest)).collect();
        let forks = ending.exceptions.iter().filter(|exception| exception.code == flag::FORK);
        let forks: BTreeSet<RecordKey> = forks.map(|exception| exception.key).collect();
        let lanes = self.hubs.books.get().lanes.clone();
        for ((source, lane), mut book) in lanes {
            // What lies above a gap that nobody will fill, since its box has another disk now, has no position.
            let reached = book.reach();
            for (seq, digests) in book.digests.range(..=reached) {
                let seq = *seq;
                let key = RecordKey { epoch: lane.epoch, lane: lane.lane, seq };
                for digest in digests {
                    if !there.contains(&(source.clone(), key, *digest)) {
                        self.find(format!("hub: {source} {key:?} was committed, and is not there"));
                    }
                }
                if digests.len() > 1 && !forks.contains(&key) {
                    self.find(format!("hub: {source} {key:?} has two records and no exception"));
                }
            }
        }
    }

    /// Nothing that a till was told is lost, unless a fault allows it, and then it is named.
    fn check_documents(&mut self, ending: &Ending) {
        let mut findings = Vec::new();
        for (index, document) in self.tills.documents.iter().enumerate() {
            let store = document.source.store_id.to_string();
            if ending.delivered.contains(&(store, document.identity.clone(), document.digest)) {
                continue;
            }
            for heard in &document.heard {
                if !self.is_excused(&document.source, heard, ending) {
                    findings.push(format!(
                        "lost: document {index} ({}), told by box {} at {} ms in its life {}: {:?}",
                        document.identity, heard.store, heard.at, heard.life, heard.key
                    ));
                }
            }
        }
        for finding in findings {
            self.find(finding);
        }
    }

    fn is_excused(&self, source: &Source, heard: &Heard, ending: &Ending) -> bool {
        let past = self.boxes[heard.store].past;
        if heard.at <= past.excused_until {
            return true;
        }
        let lane = heard.key.lane_key();
        let is_gone = |(of, key, range): &(Source, LaneKey, SeqRange)| {
            of == source && *key == lane && range.contains(heard.key.seq)
        };
        let is_named = ending.gone.iter().any(is_gone) || ending.end_unknown.contains(source);
        // The record that names a loss may be hit before it was sent: what then names it is gone too.
        past.damages > 0 && (is_named || past.damages > 1)
    }

    fn is_copied(&self, source: &Source) -> bool {
        self.boxes.iter().filter(|other| other.source == *source).count() > 1
    }

    /// The hub's totals are the tills' own sums of what came first.
    fn check_totals(&mut self, ending: &Ending) {
        let mut expected: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        let mut first = BTreeSet::new();
        let mut findings = Vec::new();
        for entry in &ending.entries {
            let Ok(record) = Record::decode(&entry.bytes) else {
                findings.push(format!("hub: the record at position {} cannot be read", entry.position));
                continue;
            };
            let Some(identity) = record.envelope.identity.clone() else { continue };
            if record.envelope.conflicts_with.is_some() {
                continue;
            }
            let store = entry.source.store_id.to_string();
            if !first.insert((store.clone(), identity.clone())) || record.kind != Kind::TRANSACTION {
                continue;
            }
            let made = self.tills.identities.get(&(entry.source.clone(), identity.clone()));
            let made = made.into_iter().flatten().map(|index| &self.tills.documents[*index]);
            let Some(document) = made.into_iter().find(|made| made.digest == record.envelope.content_digest) else {
                findings.push(format!("hub: no till made what stands at position {}", entry.position));
                continue;
            };
            let sum = expected.entry(store).or_default();
            *sum = (sum.0 + 1, sum.1 + document.gross);
        }
        let stores: BTreeSet<String> = self.boxes.iter().map(|store| store.source.store_id.to_string()).collect();
        for store in stores {
            let rows = finish(ending.ledger.totals(&store, DAY)).expect("totals can be read");
            let counted = rows.iter().filter(|row| row.what == "counted");
            let found = counted.fold((0, 0), |sum, row| (sum.0 + row.transactions, sum.1 + row.amount));
            let wanted = expected.get(&store).copied().unwrap_or_default();
            if found != wanted {
                findings.push(format!("totals: store {store} has {found:?}, its tills made {wanted:?}"));
            }
        }
        for finding in findings {
            self.find(finding);
        }
    }

    /// No exception without a cause, and no lane that the hub has in another's name.
    fn check_exceptions(&mut self, ending: &Ending) {
        for index in 0..self.boxes.len() {
            let past = &self.boxes[index].past;
            let is_contested = self.boxes[index].process.as_ref().is_some_and(|process| process.was_contested);
            if is_contested && !past.is_odd && past.damages == 0 {
                self.find(format!("box {index}: a lane is contested without a cause"));
            }
        }
        for exception in &ending.exceptions {
            let Some(source) = self.source(&exception.store_id, &exception.agent_id) else {
                self.find(format!("exception {} of an agent that is not there", exception.code));
                continue;
            };
            let boxes = self.boxes.iter().filter(|store| store.source == source);
            let past = boxes.fold(Past::default(), |sum, store| Past {
                excused_until: sum.excused_until.max(store.past.excused_until),
                damages: sum.damages + store.past.damages,
                is_odd: sum.is_odd || store.past.is_odd,
                was_cut: sum.was_cut || store.past.was_cut,
            });
            let code = exception.code.as_str();
            let has_cause = match code {
                // Where damage hides how an epoch ended, what was heard of it before contradicts the box.
                flag::ROLLBACK | flag::CLONE => past.is_odd || past.damages > 0,
                flag::FORK => past.is_odd,
                flag::CHAIN_MISMATCH => past.is_odd && self.is_copied(&source),
                // A store whose records are given back has nothing to send to a ledger that was set back further than that.
                flag::GONE => (past.is_odd || past.damages > 0) && !is_reclaimed(exception, past),
                flag::JOURNAL_DAMAGE => past.damages > 0 || past.is_odd,
                flag::TAIL_CUT => past.was_cut || past.damages > 0 || past.is_odd,
                flag::IDENTITY_CONFLICT => self.plan.faults.has(Fault::Conflicts) || past.is_odd,
                flag::UNREADABLE_RECORD | flag::UNKNOWN_KIND => false,
                _ => true,
            };
            if !has_cause {
                let of_it = |entry: &&EntryView| entry.source == source && entry.key == exception.key;
                let record = ending.entries.iter().find(of_it).and_then(|entry| Record::decode(&entry.bytes).ok());
                let document = record.map(|record| String::from_utf8_lossy(&record.document).into_owned());
                self.find(format!(
                    "exception {code} of {source} without a cause: {:?}, {}{}",
                    exception.key,
                    exception.detail,
                    document.unwrap_or_default()
                ));
            }
        }
    }
}

/// Whether an agent said that it no longer has what the hub wants. That is right only where the box's own word of what it gave back was set
/// back with its disk.
fn is_reclaimed(exception: &ExceptionView, past: Past) -> bool {
    exception.detail.ends_with("reclaimed") && !past.is_odd
}

/// The range in an exception's words: `3 to 7: damaged`.
fn range_of(detail: &str) -> Option<SeqRange> {
    let (range, _) = detail.split_once(':')?;
    let (first, last) = range.split_once(" to ")?;
    Some(SeqRange { first: Seq(first.trim().parse().ok()?), last: Seq(last.trim().parse().ok()?) })
}

/// A range that a record of damage names.
fn named_range(gone: &Value) -> Option<(LaneKey, SeqRange)> {
    let epoch = serde_json::from_value(gone.get("epoch")?.clone()).ok()?;
    let lane = serde_json::from_value(gone.get("lane")?.clone()).ok()?;
    let [first, last] = ["first", "last"].map(|name| gone.get(name).and_then(Value::as_u64));
    Some((LaneKey { epoch, lane }, SeqRange { first: Seq(first?), last: Seq(last?) }))
}
