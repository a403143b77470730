//! The catalog: what of the log is synced, as the writer publishes it to readers after each commit.
//!
//! Invariant: a reader that follows a catalog sees synced frames only. Publishing copies a few pointers and the live lanes; lists change
//! when segments turn, are given back or are damaged. Not known here: files.

use std::sync::Arc;

use counterfoil_proto::id::{Chain, Epoch, Lane, LaneKey, Seq};
use counterfoil_proto::time::WallTime;

use super::index::Filter;
use super::scan::{Mark, Run};
use super::table::{Head, lane_index};
use super::types::{EpochView, Gone, LaneView, Position};

/// A sealed segment.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) number: u32,
    pub(crate) nonce: u64,
    pub(crate) header_bytes: u32,
    pub(crate) end: u32,
    /// Bytes of its files on the disk.
    pub(crate) bytes: u64,
    pub(crate) wall_last: WallTime,
    pub(crate) runs: Vec<Run>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) holes: Vec<(u32, u32)>,
    pub(crate) filter: Filter,
    /// Epochs whose heads it states: while it is retained, the cursor keeps what the hub has of them.
    pub(crate) named: Vec<Epoch>,
}

/// What readers see of the unsealed segment.
#[derive(Clone, Debug)]
pub(crate) struct OpenView {
    pub(crate) number: u32,
    pub(crate) nonce: u64,
    pub(crate) header_bytes: u32,
    /// End of what is synced.
    pub(crate) end: u32,
    pub(crate) runs: Arc<Vec<Run>>,
    pub(crate) marks: Arc<Vec<Mark>>,
    pub(crate) holes: Arc<Vec<(u32, u32)>>,
}

/// What is synced.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pub(crate) sealed: Arc<Vec<Arc<Sealed>>>,
    pub(crate) open: OpenView,
    pub(crate) gone: Arc<Vec<Gone>>,
    /// All epochs; the live one as of the last structural change.
    pub(crate) epochs: Arc<Vec<EpochView>>,
    /// The live epoch and its heads now.
    pub(crate) live: Option<(Epoch, [Head; 3])>,
}

/// A segment as a reader walks it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(crate) number: u32,
    pub(crate) nonce: u64,
    pub(crate) header_bytes: u32,
    pub(crate) end: u32,
    pub(crate) runs: &'a [Run],
    pub(crate) marks: &'a [Mark],
    pub(crate) holes: &'a [(u32, u32)],
}

impl Sealed {
    pub(crate) fn span(&self) -> Span<'_> {
        Span {
            number: self.number,
            nonce: self.nonce,
            header_bytes: self.header_bytes,
            end: self.end,
            runs: &self.runs,
            marks: &self.marks,
            holes: &self.holes,
        }
    }
}

impl Span<'_> {
    /// From where on to look for a record, if the lane has that number here.
    pub(crate) fn seek(&self, key: LaneKey, seq: Seq) -> Option<u32> {
        let index = self.runs.iter().position(|run| run.key == key && run.first <= seq && seq <= run.last)?;
        let number = u32::try_from(index).ok()?;
        let mark = self.marks.iter().rfind(|mark| mark.run == number && mark.seq <= seq);
        Some(mark.map_or(self.runs[index].start, |mark| mark.offset))
    }

    /// The end of a known hole that covers the offset.
    pub(crate) fn hole_end(&self, offset: u32) -> Option<u32> {
        self.holes.iter().find(|(start, end)| *start <= offset && offset < *end).map(|(_, end)| *end)
    }
}

impl Catalog {
    pub(crate) fn open_span(&self) -> Span<'_> {
        Span {
            number: self.open.number,
            nonce: self.open.nonce,
            header_bytes: self.open.header_bytes,
            end: self.open.end,
            runs: &self.open.runs,
            marks: &self.open.marks,
            holes: &self.open.holes,
        }
    }

    /// All segments, oldest first.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span<'_>> {
        self.sealed.iter().map(|sealed| sealed.span()).chain(std::iter::once(self.open_span()))
    }

    /// The segment with that number.
    pub(crate) fn span(&self, number: u32) -> Option<Span<'_>> {
        if number == self.open.number {
            return Some(self.open_span());
        }
        let index = self.sealed.binary_search_by_key(&number, |sealed| sealed.number).ok()?;
        self.sealed.get(index).map(|sealed| sealed.span())
    }

    /// The first segment above that number.
    pub(crate) fn span_after(&self, number: u32) -> Option<Span<'_>> {
        let index = self.sealed.partition_point(|sealed| sealed.number <= number);
        match self.sealed.get(index) {
            Some(sealed) => Some(sealed.span()),
            None => (self.open.number > number).then(|| self.open_span()),
        }
    }

    /// The first segment and the offset in it from which a reader finds the record.
    pub(crate) fn seek(&self, key: LaneKey, seq: Seq) -> Option<(Span<'_>, u32)> {
        self.spans().find_map(|span| span.seek(key, seq).map(|offset| (span, offset)))
    }

    /// The lost range that holds a record.
    pub(crate) fn gone(&self, key: LaneKey, seq: Seq) -> Option<Gone> {
        self.gone.iter().find(|gone| gone.key == key && gone.range.contains(seq)).copied()
    }

    /// The last number of a lane.
    pub(crate) fn last(&self, key: LaneKey) -> Seq {
        if let Some((epoch, heads)) = &self.live
            && *epoch == key.epoch
        {
            return heads[lane_index(key.lane)].last;
        }
        self.lane(key).map_or(Seq::NONE, |lane| lane.last)
    }

    fn lane(&self, key: LaneKey) -> Option<&LaneView> {
        let epoch = self.epochs.iter().find(|view| view.epoch == key.epoch)?;
        epoch.lanes.iter().find(|view| view.lane == key.lane)
    }

    /// The first retained number of a lane and the chain before it.
    pub(crate) fn first(&self, key: LaneKey) -> (Seq, Option<Chain>) {
        match self.lane(key) {
            Some(lane) => (lane.first, lane.before),
            None => (Seq::FIRST, Some(Chain::genesis(key.epoch, key.lane))),
        }
    }

    /// The last number up to `seq` after which the chain is at hand, and that chain.
    pub(crate) fn chain_point(&self, key: LaneKey, seq: Seq) -> Option<(Seq, Chain)> {
        let (first, before) = self.first(key);
        let spans: Vec<Span<'_>> = self.spans().collect();
        let runs = spans.iter().flat_map(|span| span.runs).filter(|run| run.key == key);
        let of_runs = runs.flat_map(|run| [(run.first.previous(), run.before), (run.last, run.after)]);
        let of_gone = self.gone.iter().filter(|gone| gone.key == key).map(|gone| (gone.range.last, gone.chain_after));
        let points = of_runs.chain(of_gone).chain([(first.previous(), before)]);
        points.filter_map(|(at, chain)| Some((at, chain?))).filter(|(at, _)| *at <= seq).max_by_key(|(at, _)| *at)
    }

    /// The epochs as of now.
    pub(crate) fn views(&self) -> Vec<EpochView> {
        let mut views = self.epochs.as_ref().clone();
        let Some((epoch, heads)) = &self.live else { return views };
        // An epoch of which nothing is synced may never come to be: a segment that turns for its first record publishes too.
        if heads.iter().all(|head| head.last == Seq::NONE) {
            views.retain(|view| view.epoch != *epoch);
            return views;
        }
        let Some(view) = views.iter_mut().find(|view| view.epoch == *epoch) else { return views };
        for lane in Lane::ALL {
            let head = heads[lane_index(lane)];
            match view.lanes.iter_mut().find(|view| view.lane == lane) {
                Some(view) => (view.last, view.after) = (head.last, head.chain),
                None if head.last > Seq::NONE => view.lanes.push(LaneView {
                    lane,
                    first: Seq::FIRST,
                    before: Some(Chain::genesis(*epoch, lane)),
                    last: head.last,
                    after: head.chain,
                    gone: Vec::new(),
                }),
                None => {}
            }
        }
        view.lanes.sort_by_key(|view| view.lane);
        views
    }

    /// The end of what is synced.
    pub(crate) fn end(&self) -> Position {
        Position::new(self.open.number, self.open.end)
    }
}
