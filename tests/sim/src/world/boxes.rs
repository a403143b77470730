//! What a box does in the world: it starts, serves, sends, connects, dies.

use counterfoil::uplink::backoff;

use super::{Event, Message, World};
use crate::store::{Died, Said};

impl World {
    pub(super) fn start(&mut self, index: usize) {
        if self.boxes[index].process.is_some() {
            return;
        }
        let started = self.boxes[index].start(self.now);
        let life = self.boxes[index].life;
        self.trace.note(self.now, &format!("start {index} {life} {}", started.is_ok()));
        match started {
            Ok(()) => {
                self.after(1, Event::Connect(index, life));
                self.after(500, Event::Tick(index, life));
            }
            Err(died) => self.died(index, &died),
        }
    }

    /// systemd starts it again after a while.
    pub(crate) fn died(&mut self, index: usize, died: &Died) {
        self.trace.note(self.now, &format!("died {index}: {}", died.0));
        self.leave(index);
        let now = self.now;
        self.boxes[index].kill(now);
        self.start_later(index, 1_000, 4_000);
    }

    pub(crate) fn start_later(&mut self, index: usize, low_ms: u64, high_ms: u64) {
        let delay = self.random.between(low_ms, high_ms);
        let life = self.boxes[index].life;
        self.after(delay, Event::Start(index, life));
    }

    /// The box's connection is gone; whoever is left there does not know yet, or is gone too.
    pub(crate) fn leave(&mut self, index: usize) {
        self.broker.clients.retain(|_, (_, holder)| *holder != index);
    }

    pub(crate) fn serve(&mut self, index: usize) {
        let now = self.moment();
        self.boxes[index].set_time(self.now);
        let Some(process) = &mut self.boxes[index].process else { return };
        let (answers, served) = process.serve();
        if served.is_ok() {
            process.news(now);
        }
        for (document, answer) in answers {
            self.answered(index, document, answer);
        }
        if let Err(died) = served {
            return self.died(index, &died);
        }
        self.check_given_back(index);
        self.pump(index);
    }

    pub(super) fn tick(&mut self, index: usize) {
        let life = self.boxes[index].life;
        if let Some(process) = &mut self.boxes[index].process {
            process.waiting.push(counterfoil::agent::Request::Tick);
        }
        self.serve(index);
        self.after(1_000, Event::Tick(index, life));
    }

    pub(super) fn pump(&mut self, index: usize) {
        let now = self.moment();
        self.boxes[index].set_time(self.now);
        let Some(process) = &mut self.boxes[index].process else { return };
        let connection = process.connection();
        match process.pump(now) {
            Ok(said) => {
                if said.line_ended {
                    self.line_ended(index);
                }
                self.publish(index, said);
            }
            Err(died) => return self.died(index, &died),
        }
        if connection.is_some() && self.boxes[index].process.as_ref().is_some_and(|process| !process.waiting.is_empty())
        {
            let life = self.boxes[index].life;
            self.after(1, Event::Serve(index, life));
        }
    }

    pub(super) fn publish(&mut self, index: usize, said: Said) {
        let (source, life) = (self.boxes[index].source.clone(), self.boxes[index].life);
        let planned = self.boxes[index].wake_at.filter(|planned| *planned > self.now);
        if let Some(at) = said.wake_at
            && planned.is_none_or(|planned| at < planned)
        {
            self.boxes[index].wake_at = Some(at);
            self.at(at, Event::Wake(index, life));
        }
        for (up, payload) in said.messages {
            let message = Message { source: source.clone(), up, payload };
            self.trace.note(self.now, &format!("up {index} {up:?} {}", message.payload.len()));
            if !self.boxes[index].is_cut_off {
                self.send_up(&message);
            }
        }
    }

    // The broker.

    pub(super) fn connect(&mut self, index: usize) {
        let life = self.boxes[index].life;
        let Some(process) = &self.boxes[index].process else { return };
        if process.connection().is_some() {
            return;
        }
        if self.boxes[index].is_cut_off {
            return self.connect_later(index);
        }
        let source = self.boxes[index].source.clone();
        self.broker.connections += 1;
        let connection = self.broker.connections;
        if let Some((_, other)) = self.broker.clients.insert(source, (connection, index)) {
            // The same client id: the broker drops the older connection.
            self.line_ended_but_for(other, index);
        }
        self.boxes[index].set_time(self.now);
        let now = self.moment();
        let process = self.boxes[index].process.as_mut();
        if let Some(said) = process.and_then(|process| process.connected(connection, now)) {
            self.publish(index, said);
        }
        self.after(1, Event::Serve(index, life));
    }

    pub(super) fn line_ended_but_for(&mut self, other: usize, index: usize) {
        if other != index {
            self.line_ended(other);
        }
    }

    /// The agent's connection broke; it comes back by itself.
    pub(crate) fn line_ended(&mut self, index: usize) {
        let connection = self.boxes[index].process.as_ref().and_then(crate::store::Process::connection);
        self.broker.clients.retain(|_, (held, holder)| *holder != index || Some(*held) != connection);
        if let Some(process) = &mut self.boxes[index].process {
            process.disconnected();
            self.connect_later(index);
        }
    }

    pub(super) fn connect_later(&mut self, index: usize) {
        let draw = self.random.next();
        let life = self.boxes[index].life;
        let Some(process) = &mut self.boxes[index].process else { return };
        process.silent_sessions = process.silent_sessions.max(1);
        let wait_ms = backoff::wait_ms(process.silent_sessions, 60_000, draw);
        self.after(wait_ms, Event::Connect(index, life));
    }
}
