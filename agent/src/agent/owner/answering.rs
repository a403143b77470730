//! Questions about what is known: they are answered after the sync of the round in which they came, and change nothing.

use counterfoil_proto::id::{LaneKey, Seq};
use counterfoil_proto::message::PositionItem;
use counterfoil_proto::record::Prepared;
use counterfoil_proto::time::WallTime;
use tracing::error;

use super::Owner;
use crate::agent::group::{StagingError, read_record, receipt};
use crate::agent::{Reply, Tally, judge};
use crate::answer::{DayAnswer, ExceptionAnswer, Forecast, Progress, ReceiptAnswer, Refused, StockAnswer};
use crate::journal::{Found, IdentityKey};

/// A question that is answered after the sync of its round.
#[derive(Debug)]
pub(super) enum Question {
    Forecast { documents: Vec<Prepared>, reply: Reply<Vec<Forecast>> },
    Stock { item_id: String, reply: Reply<Option<StockAnswer>> },
    Receipt { identity: String, reply: Reply<Option<ReceiptAnswer>> },
    Day { business_day_date: String, reply: Reply<DayAnswer> },
    Exceptions { all: bool, reply: Reply<Vec<ExceptionAnswer>> },
    Tally { reply: Reply<Tally> },
    Exception { id: String, reply: Reply<Option<ExceptionAnswer>> },
    Positions { reply: Reply<PositionsSnapshot> },
}

/// Stock on hand of everything, for the hub.
#[derive(Clone, Debug)]
pub struct PositionsSnapshot {
    /// When it was taken.
    pub taken_at: WallTime,
    /// Up to where records are in it.
    pub heads: Vec<(LaneKey, Seq)>,
    /// The items.
    pub items: Vec<PositionItem>,
}

impl Owner {
    pub(super) fn answer(&mut self, question: Question) {
        let now = self.env.wall();
        match question {
            Question::Forecast { documents, reply } => {
                let store_id = self.reporter.store_id();
                let answer = judge::forecast(store_id, &mut self.journal, &self.state, &documents).map_err(|failure| {
                    error!(failure = %crate::error::chain(&failure), "documents could not be judged");
                    Refused::Unanswered
                });
                reply.send(answer).unwrap_or_default();
            }
            Question::Stock { item_id, reply } => reply.send(Ok(self.state.stock(&item_id))).unwrap_or_default(),
            Question::Day { business_day_date, reply } => {
                reply.send(Ok(self.state.day(&business_day_date))).unwrap_or_default();
            }
            Question::Exceptions { all, reply } => reply.send(Ok(self.state.exceptions(all, now))).unwrap_or_default(),
            Question::Tally { reply } => {
                let today = self.state.day_standing(&self.reporter.business_day(now));
                reply.send(Ok(Tally { exceptions: self.state.tally_exceptions(now), today })).unwrap_or_default();
            }
            Question::Exception { id, reply } => reply.send(Ok(self.state.exception(&id, now))).unwrap_or_default(),
            Question::Positions { reply } => reply.send(Ok(self.positions())).unwrap_or_default(),
            Question::Receipt { identity, reply } => {
                let answer = self.receipt(&identity).map_err(|failure| {
                    error!(failure = %crate::error::chain(&failure), "a receipt could not be read");
                    Refused::Unanswered
                });
                reply.send(answer).unwrap_or_default();
            }
        }
    }

    fn receipt(&mut self, identity: &str) -> Result<Option<ReceiptAnswer>, StagingError> {
        let position = match self.journal.find(IdentityKey::of(identity))? {
            Found::Nothing => return Ok(None),
            Found::Pending(position) | Found::Synced(position) => position,
        };
        let Some((key, record)) = read_record(&self.journal, position)? else { return Ok(None) };
        let marks = self.journal.marks(key.lane_key());
        let sent = self.uplink.borrow().sent.get(&key.lane_key()).copied().unwrap_or(Seq::NONE);
        let progress = if key.seq <= marks.safe {
            Progress::Safe
        } else if key.seq <= marks.stored {
            Progress::Stored
        } else if key.seq <= sent {
            Progress::Sent
        } else {
            Progress::Recorded
        };
        Ok(Some(ReceiptAnswer {
            receipt: receipt(key, &record.envelope, true),
            kind: record.kind.name().unwrap_or("unknown").to_owned(),
            progress,
            correlation_id: record.envelope.correlation_id,
        }))
    }

    fn positions(&self) -> PositionsSnapshot {
        let heads = self.journal.lanes().into_iter().flat_map(|view| {
            let epoch = view.epoch;
            view.lanes.into_iter().map(move |lane| (LaneKey { epoch, lane: lane.lane }, lane.last))
        });
        let items = self.state.stock_all().map(|entry| PositionItem {
            item_id: entry.item_id.to_owned(),
            unit: entry.unit.to_owned(),
            on_hand: entry.on_hand.map(|on_hand| on_hand.normalize().to_string()),
            delta: entry.delta.normalize().to_string(),
        });
        PositionsSnapshot { taken_at: self.env.wall(), heads: heads.collect(), items: items.collect() }
    }
}
