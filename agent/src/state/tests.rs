//! What the fold promises, tested on records that are built here.

mod drawers;
mod fixture;
mod fold;
mod limits;
mod numbers;
mod orders;
mod properties;
mod returns;
mod snapshot;
mod store;

use std::str::FromStr;

use counterfoil_proto::id::{Epoch, Lane, RecordKey, Seq};
use counterfoil_proto::record::facts::{
    DayCloseFacts, DeclaredTotals, Facts, MovementFacts, ReturnLine, StockChange, StockCount, TaxSum, TenderSum,
    TransactionFacts, TransactionStatus, TransactionType,
};
use counterfoil_proto::record::{Envelope, Flag, Kind, Prepared, Record};
use counterfoil_proto::time::WallTime;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::State;

pub(super) const DAY: &str = "2026-11-23";
pub(super) const NOW: WallTime = WallTime(1_763_900_000_000);

/// One frame of a journal.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) position: u64,
    pub(super) key: RecordKey,
    pub(super) record: Record,
    pub(super) facts: Facts,
}

/// Gives records their places, as a journal does.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    pub(super) epoch: u8,
    seqs: [u64; 3],
    pub(super) frames: Vec<Frame>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { epoch: 1, seqs: [0; 3], frames: Vec::new() }
    }

    pub(super) fn restart(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.seqs = [0; 3];
    }

    /// Appends, and returns the record's key.
    pub(super) fn append(&mut self, (mut record, facts): (Record, Facts)) -> RecordKey {
        let lane = record.kind.lane();
        let seq = &mut self.seqs[usize::from(lane.code())];
        *seq += 1;
        let key = RecordKey { epoch: Epoch([self.epoch; 16]), lane, seq: Seq(*seq) };
        let position = self.frames.len() as u64 * 400 + 64;
        record.envelope.recorded_at = WallTime(NOW.0 - 1_000_000 + i64::try_from(self.frames.len()).unwrap() * 1_000);
        self.frames.push(Frame { position, key, record, facts });
        key
    }

    pub(super) fn state(&self) -> State {
        let mut state = State::in_memory();
        apply_all(&mut state, &self.frames);
        state
    }
}

pub(super) fn apply_all(state: &mut State, frames: &[Frame]) {
    for frame in frames {
        state.apply(frame.position, frame.key, &frame.record, &frame.facts);
    }
}

pub(super) fn decimal(text: &str) -> Decimal {
    Decimal::from_str(text).unwrap()
}

pub(super) fn envelope(identity: &str, flags: &[&str]) -> Envelope {
    let flag = |code: &&str| Flag { code: (*code).to_owned().into(), pointer: "/totals/gross".to_owned() };
    Envelope {
        identity: Some(identity.to_owned()),
        business_day_date: Some(DAY.to_owned()),
        correlation_id: Some("c-1".to_owned()),
        flags: flags.iter().map(flag).collect(),
        ..Envelope::default()
    }
}

pub(super) fn sale_facts(till: &str, sequence_number: u64, gross: i64) -> TransactionFacts {
    TransactionFacts {
        workstation_id: till.to_owned(),
        business_day_date: DAY.to_owned(),
        sequence_number: Some(sequence_number),
        sequence_epoch: 0,
        transaction_type: TransactionType::Sale,
        status: TransactionStatus::Finished,
        training_mode: false,
        currency_code: "EUR".to_owned(),
        gross,
        net: Some(gross - gross / 6),
        tax: Some(gross / 6),
        taxes: vec![TaxSum {
            category: "S".to_owned(),
            rate: decimal("20.0"),
            taxable_amount: gross - gross / 6,
            amount: gross / 6,
        }],
        tenders: vec![
            TenderSum { tender_type: "cash".to_owned(), amount: gross + 100 },
            TenderSum { tender_type: "change".to_owned(), amount: -100 },
        ],
        stock: vec![change("mug", "EA", "-2")],
        returns: Vec::new(),
        ended_at: NOW,
    }
}

pub(super) fn transaction(facts: TransactionFacts) -> (Record, Facts) {
    let number = facts.sequence_number.unwrap_or(0);
    let identity = format!("t/{}/{}/{number}/{}", facts.workstation_id, facts.business_day_date, facts.sequence_epoch);
    (record(Kind::TRANSACTION, envelope(&identity, &[]), b"{}"), Facts::Transaction(facts))
}

pub(super) fn sale(till: &str, sequence_number: u64, gross: i64) -> (Record, Facts) {
    transaction(sale_facts(till, sequence_number, gross))
}

pub(super) fn flagged(mut appended: (Record, Facts), codes: &[&str]) -> (Record, Facts) {
    appended.0.envelope.flags = envelope("", codes).flags;
    appended
}

pub(super) fn record(kind: Kind, envelope: Envelope, document: &[u8]) -> Record {
    Record { kind, envelope, document: document.to_vec() }
}

pub(super) fn change(item_id: &str, unit: &str, delta: &str) -> StockChange {
    StockChange { item_id: item_id.to_owned(), unit: unit.to_owned(), delta: decimal(delta) }
}

pub(super) fn movement(changes: Vec<StockChange>) -> (Record, Facts) {
    (
        record(Kind::STOCK_MOVEMENT, envelope("d/m", &[]), b"{}"),
        Facts::Movement(MovementFacts { changes, counts: Vec::new() }),
    )
}

pub(super) fn count(item_id: &str, unit: &str, counted: &str) -> (Record, Facts) {
    let counts = vec![StockCount { item_id: item_id.to_owned(), unit: unit.to_owned(), counted: decimal(counted) }];
    (
        record(Kind::STOCK_MOVEMENT, envelope("d/c", &[]), b"{}"),
        Facts::Movement(MovementFacts { changes: Vec::new(), counts }),
    )
}

pub(super) fn close(till: Option<&str>, day: &str) -> (Record, Facts) {
    let totals = DeclaredTotals {
        currency_code: "EUR".to_owned(),
        transactions: 3,
        gross: 1_234,
        net: None,
        tax: None,
        taxes: Vec::new(),
        tenders: vec![TenderSum { tender_type: "cash".to_owned(), amount: 1_234 }],
    };
    let facts = DayCloseFacts {
        workstation_id: till.map(ToOwned::to_owned),
        business_day_date: day.to_owned(),
        declared: vec![totals],
        first_sequence_number: None,
        last_sequence_number: None,
    };
    (record(Kind::DAY_CLOSE, envelope("d/close", &[]), b"{}"), Facts::DayClose(facts))
}

pub(super) fn resolve(exception_id: &str) -> (Record, Facts) {
    changed(exception_id, "resolved")
}

pub(super) fn changed(exception_id: &str, change: &str) -> (Record, Facts) {
    let document = json!({"exception_id": exception_id, "change": change, "by": "Ann \"17\"", "reason": "recounted"});
    let document = serde_json::to_vec(&document).unwrap();
    (record(Kind::EXCEPTION_CHANGE, Envelope::default(), &document), Facts::None)
}

pub(super) fn prepared((record, facts): (Record, Facts)) -> Prepared {
    Prepared { kind: record.kind, envelope: record.envelope, document: record.document, warnings: Vec::new(), facts }
}

/// Everything that can be asked.
pub(super) fn answers(state: &State) -> Value {
    let items: std::collections::BTreeSet<&str> = state.stock_all().map(|entry| entry.item_id).collect();
    let days: Vec<String> = (1..=31).map(|day| format!("2026-11-{day:02}")).collect();
    let exceptions = state.exceptions(true, NOW);
    json!({
        "stock": items.iter().map(|item_id| state.stock(item_id)).collect::<Vec<_>>(),
        "entries": state.stock_all().map(|entry| format!("{entry:?}")).collect::<Vec<_>>(),
        "days": days.iter().map(|day| state.day(day)).collect::<Vec<_>>(),
        "closed": days.iter().map(|day| state.tables.days.is_closed(day, Some("1"))).collect::<Vec<_>>(),
        "one_by_one": exceptions.iter().map(|exception| state.exception(&exception.id, NOW)).collect::<Vec<_>>(),
        "exceptions": exceptions,
        "open": state.exceptions(false, NOW),
        "open_exceptions": state.open_exceptions(),
        "as_of": state.as_of(),
        "heads": state.lane_heads().map(|head| format!("{head:?}")).collect::<Vec<_>>(),
        "counters": format!("{:?}", state.counters()),
        "applied": state.applied(),
    })
}

pub(super) fn lane_of(state: &State, lane: Lane) -> Option<u64> {
    state.as_of()?.lanes.get(lane.as_str()).copied()
}
