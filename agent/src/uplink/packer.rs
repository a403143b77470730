//! What the uplink says, made of what the journal has: batches of records, heads for hellos, parts of a stock snapshot.
//!
//! Invariant: a batch holds what is synced, in order and without a hole. What to send and when is not known here, nor over what.

use counterfoil_proto::codec;
use counterfoil_proto::codec::json;
use counterfoil_proto::id::{Chain, Digest, RecordKey, Seq, SeqRange, SessionId, Source};
use counterfoil_proto::limits::{BATCH_BYTES_TARGET, JSON_BATCH_BYTES_TARGET, POSITIONS_ITEMS_MAX};
use counterfoil_proto::message::{
    EpochHeads, Gone, GoneReason, LaneHead, Parent, PositionHead, PositionItem, Positions,
};

use counterfoil_proto::record::Record;
use counterfoil_telemetry::follow::{self, Names};

use crate::agent::PositionsSnapshot;
use crate::journal::{self, EpochView, Read, ReadError, Reader};

/// zstd's level: 3 reaches an eighth on receipts at about 250 MB/s of one core.
pub(crate) const ZSTD_LEVEL: i32 = 3;

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// The batch cannot be written.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
}

/// Reads records and makes batches of them, on a thread that may block.
pub struct Packer {
    reader: Reader,
    /// Where JSON is spoken: who says it.
    json: Option<Source>,
    /// Where the last batch ended and the chain there: the next one mostly begins after it.
    end: Option<(RecordKey, Chain)>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Packer").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// What became of a wish to send.
#[derive(Debug)]
pub enum Packed {
    /// To be published.
    Batch {
        /// What it covers.
        range: SeqRange,
        /// Encoded.
        bytes: Vec<u8>,
        /// The digest of each record.
        digests: Vec<Digest>,
        /// The names of each, where somebody wants to know.
        names: Vec<Names>,
    },
    /// The journal has to look at a segment first.
    Damaged {
        /// Which.
        segment: u32,
    },
    /// There is nothing to send; the journal's heads say why.
    Nothing,
}

impl Packer {
    /// A packer over a reader of its own; `None` where there is no memory for a compressor.
    pub fn new(reader: Reader) -> Option<Self> {
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?;
        Some(Self { reader, json: None, end: None, compressor })
    }

    /// The same, making batches in JSON, of `source`.
    #[must_use]
    pub fn in_json(self, source: Source) -> Self {
        Self { json: Some(source), ..self }
    }

    /// Reads from `first` on, and makes a batch of it.
    pub fn pack(
        &mut self,
        session: SessionId,
        first: RecordKey,
        records_max: usize,
        plain: bool,
    ) -> Result<Packed, PackError> {
        let bytes_max = if self.json.is_some() { JSON_BATCH_BYTES_TARGET } else { BATCH_BYTES_TARGET };
        match self.reader.read(first.lane_key(), first.seq, records_max, bytes_max)? {
            Read::Records { first: seq, stored } if seq == first.seq => {
                let count = u64::try_from(stored.len()).unwrap_or(u64::MAX);
                let range = SeqRange { first: seq, last: seq.plus(count).previous() };
                let digests: Vec<Digest> = stored.iter().map(|stored| Digest::of(stored)).collect();
                let bytes = match &self.json {
                    None => codec::encode_batch(session, first, &stored, |bytes| {
                        if plain { None } else { self.compressor.compress(bytes).ok() }
                    })?,
                    Some(source) => {
                        let before = self.chain_before(first)?;
                        self.end = before.map(|before| {
                            let end = (range.first.0..).zip(&digests);
                            let chain = end.fold(before, |chain, (seq, digest)| chain.next(Seq(seq), *digest));
                            (RecordKey { seq: range.last, ..first }, chain)
                        });
                        json::encode_batch(source, session, first, before, &stored)?
                    }
                };
                let names = if follow::is_wanted() { names(first, &stored) } else { Vec::new() };
                Ok(Packed::Batch { range, bytes, digests, names })
            }
            Read::Damaged { segment } => Ok(Packed::Damaged { segment }),
            Read::Records { .. } | Read::Gone(_) | Read::NotYet | Read::Reclaimed { .. } => Ok(Packed::Nothing),
        }
    }

    fn chain_before(&self, first: RecordKey) -> Result<Option<Chain>, PackError> {
        let before = RecordKey { seq: first.seq.previous(), ..first };
        match self.end {
            _ if before.seq == Seq::NONE => Ok(Some(Chain::genesis(first.epoch, first.lane))),
            Some((at, chain)) if at == before => Ok(Some(chain)),
            Some(_) | None => self.chain(before),
        }
    }

    /// The chain after a record, as far as the journal knows it.
    pub fn chain(&self, key: RecordKey) -> Result<Option<Chain>, PackError> {
        // A reader of its own: the other goes on where it stands.
        Ok(self.reader.clone().chain(key.lane_key(), key.seq)?)
    }
}

fn names(first: RecordKey, stored: &[Vec<u8>]) -> Vec<Names> {
    let named = (first.seq.0..).zip(stored).filter_map(|(seq, stored)| {
        let envelope = Record::decode(stored).ok()?.envelope;
        let record = RecordKey { seq: Seq(seq), ..first }.correlation_id();
        let correlation_id = envelope.correlation_id.unwrap_or_else(|| record.clone());
        Some(Names { record, correlation_id, traceparent: envelope.traceparent })
    });
    named.collect()
}

/// The journal's view of its epochs, as a hello says it.
pub fn heads(epochs: Vec<EpochView>) -> Vec<EpochHeads> {
    let head = |lane: journal::LaneView| LaneHead {
        lane: lane.lane,
        first: lane.first,
        chain_before: lane.before,
        last: lane.last,
        chain: lane.after,
        gone: lane.gone.iter().map(gone).collect(),
    };
    let epoch = |view: EpochView| EpochHeads {
        epoch: view.epoch,
        parent: view.parent.map(|epoch| Parent { epoch, lanes: Vec::new() }),
        live: view.live,
        lanes: view.lanes.into_iter().map(head).collect(),
    };
    epochs.into_iter().map(epoch).collect()
}

fn gone(gone: &journal::Gone) -> Gone {
    let reason = match gone.reason {
        journal::GoneReason::Damaged => GoneReason::Damaged,
        journal::GoneReason::Missing => GoneReason::Missing,
    };
    Gone { range: gone.range, reason, chain_before: None, chain_after: gone.chain_after }
}

/// A snapshot of stock on hand in parts that fit a message.
pub fn positions(session: SessionId, snapshot: PositionsSnapshot) -> Vec<Positions> {
    let PositionsSnapshot { taken_at, heads, items } = snapshot;
    let chunks: Vec<_> = items.chunks(POSITIONS_ITEMS_MAX).collect();
    let parts = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
    let part = |(part, items): (u16, &[PositionItem])| Positions {
        session,
        round: 1,
        part,
        parts,
        taken_at,
        heads: heads.iter().map(|&(key, last)| PositionHead { key, last }).collect(),
        items: items.to_vec(),
    };
    (0..parts).zip(chunks).map(part).collect()
}
