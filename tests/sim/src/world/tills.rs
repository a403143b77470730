//! What tills do in the world: they choose, send, hear, and hold the box to what it said.

use counterfoil::answer::{Outcome, Receipt, Refused};

use super::{Event, World};
use crate::plan::Fault;
use crate::till::{Heard, key_of};

impl World {
    pub(super) fn till(&mut self, till: usize) {
        let (home, pace_ms) = (self.tills.all[till].home, self.tills.all[till].pace_ms);
        let pending = self.tills.all[till].pending;
        if pending.is_none() && self.is_healed {
            return;
        }
        let document = pending.unwrap_or_else(|| self.choose(till, home));
        self.tills.all[till].pending = Some(document);
        let wait_ms = if pending.is_some() { 2_000 } else { pace_ms };
        let next = self.random.around(wait_ms);
        self.after(next, Event::Till(till));
        let context = self.boxes[home].config.context();
        let life = self.boxes[home].life;
        let copies = if self.has(Fault::Doubles) && self.random.chance(100) { 2 } else { 1 };
        let Some(process) = &mut self.boxes[home].process else { return };
        for _ in 0..copies {
            process.submit(document, self.tills.prepared(document, &context));
        }
        let delay = self.random.between(1, 25);
        self.after(delay, Event::Serve(home, life));
    }

    pub(super) fn choose(&mut self, till: usize, home: usize) -> usize {
        let (source, context) = (self.boxes[home].source.clone(), self.boxes[home].config.context());
        let answered = self.tills.all[till].answered.len();
        if answered > 0 && self.has(Fault::Doubles) && self.random.chance(150) {
            let index = self.random.index(answered);
            return self.tills.all[till].answered[index];
        }
        if answered > 0 && self.has(Fault::Conflicts) && self.random.chance(80) {
            return self.tills.contradict(till, &source, &context, &mut self.random);
        }
        self.tills.make(till, &source, &context, &mut self.random)
    }

    pub(super) fn answered(&mut self, index: usize, document: usize, answer: Option<Result<Outcome, Refused>>) {
        let outcome = match answer {
            Some(Ok(outcome)) => outcome,
            Some(Err(refused)) => {
                return self.trace.note(self.now, &format!("refused {index} {document} {refused}"));
            }
            None => return,
        };
        self.trace.note(self.now, &format!("answer {index} {document} {outcome:?}"));
        if self.has(Fault::LostReply) && self.random.chance(200) {
            return;
        }
        for till in &mut self.tills.all {
            if till.pending == Some(document) {
                till.pending = None;
                till.answered.push(document);
            }
        }
        match outcome {
            Outcome::Recorded(receipt) | Outcome::Duplicate(receipt) => self.receipt(index, document, &receipt),
            Outcome::Conflict(conflict) => {
                if conflict.existing.digest == self.tills.documents[document].digest.to_string() {
                    self.find(format!("box {index}: called document {document} a conflict with itself"));
                }
                self.receipt(index, document, &conflict.kept);
            }
        }
    }

    pub(super) fn receipt(&mut self, index: usize, document: usize, receipt: &Receipt) {
        let (key, source) = (key_of(receipt), self.boxes[index].source.clone());
        let digest = self.tills.documents[document].digest;
        if receipt.digest != digest.to_string() {
            self.find(format!("box {index}: document {document} was answered with the receipt of another"));
        }
        let is_twin = self.boxes.iter().filter(|other| other.source == source).count() > 1;
        match self.tills.keys.insert((source, key), document) {
            Some(other) if other != document && !is_twin => {
                self.find(format!("box {index}: documents {other} and {document} have one number, {key:?}"));
            }
            Some(_) | None => {}
        }
        let past = self.boxes[index].past;
        let is_there = self.boxes[index].process.as_ref().is_some_and(|process| {
            let lanes = process.reader.lanes();
            let lane = |heard: &Heard| {
                let view = lanes.iter().find(|view| view.epoch == heard.key.epoch)?;
                view.lanes.iter().find(|lane| lane.lane == heard.key.lane)
            };
            let retained = |heard: &&Heard| lane(heard).is_some_and(|lane| lane.first <= heard.key.seq);
            let heard = self.tills.documents[document].heard.iter();
            heard.filter(|heard| heard.store == index).filter(retained).any(|heard| heard.key != key)
        });
        // Where what it contradicts was given back, a document that was kept beside it is the first one of its identity.
        let identity = (self.tills.documents[document].source.clone(), self.tills.documents[document].identity.clone());
        let is_alone = self.tills.identities.get(&identity).is_some_and(|documents| documents.len() == 1);
        if is_there && is_alone && past.damages == 0 && !past.is_odd && past.excused_until == 0 {
            self.find(format!("box {index}: document {document} was recorded twice"));
        }
        let heard = Heard { store: index, life: self.boxes[index].life, at: self.now, key };
        self.tills.documents[document].heard.push(heard);
    }
}
