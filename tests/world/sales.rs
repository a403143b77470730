//! Rows of a CSV as the documents of tills: what goes to which till, under which identity, in which order.
//!
//! What the data set does not have is invented here, and only here, as a function of the rows alone, so that a till which starts
//! again sends the same identities with the same bytes: store and workstation (hash of the invoice number), sequence number
//! (per workstation and day, in the order of the file), tender (hash), day close (after a workstation's last document of a day). What it has is
//! carried: country and invoice number in `attributes`, customer in `customer_id`, times without a zone as they stand.
//!
//! Invariant: a row becomes exactly one line of exactly one document. Documents are folded nowhere here but into what was *expected*.

use std::collections::BTreeMap;

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Value, json};

use crate::random::hash;
use crate::retail_csv::Row;

/// What the tool's help says about what is made up.
pub const INVENTED: &str = "\
The data set has no stores, workstations, sequence numbers, tenders, taxes or day closes. They are invented, always in the same way:
  store and workstation   by a hash of the invoice number
  sequence number         per workstation and day, in the order of the file
  tender                  cash (with change), card or account by the same hash; Σ tenders = Σ lines
  day close               after a workstation's last document of a day, with the totals of its transactions
  opening count           (replay only) one count of every item of a store before the first sale
No tax is stated. What is carried: country and invoice number (attributes), customer (customer_id), times without a zone.
  invoice                 one transaction, also where its lines have two timestamps (begin and end)
  C...                    transaction of type return; its lines of kind return, whatever their code, negative in quantity and amount
  A...                    bad debt, entered at a till as the sale of the item B, the price negative as in the file
  negative, price 0       one stock movement: `loss` where the note speaks of damage or absence, else `adjustment`
  POST, DOT, C2, BANK CHARGES, AMAZONFEE, CRUK   lines of kind `fee`; gift_...: `gift_card`; M, m, D, S: `other`. None moves stock where it is sold
  extended amount         quantity x unit price, rounded to pence; the comparison uses the unrounded product";

const CURRENCY: &str = "GBP";

/// Where a document is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `POST /v1/transactions`.
    Transactions,
    /// `POST /v1/stock-movements`.
    StockMovements,
    /// `POST /v1/day-closes`.
    DayCloses,
}

impl Call {
    /// The path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Transactions => "/v1/transactions",
            Self::StockMovements => "/v1/stock-movements",
            Self::DayCloses => "/v1/day-closes",
        }
    }
}

/// A document, ready to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its identity in its store, as [`key`] makes it.
    pub key: String,
    /// Where it is posted.
    pub call: Call,
    /// JSON, the same bytes each time.
    pub body: String,
}

/// What a till has to do.
#[derive(Clone, Debug)]
pub struct TillScript {
    /// The store.
    pub store_id: String,
    /// The till.
    pub workstation_id: String,
    /// In the order of sending.
    pub documents: Vec<Document>,
}

/// What the hub must say of a till's day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TillDay {
    /// Counted transactions.
    pub transactions: u64,
    /// Σ totals.gross.
    pub gross: Decimal,
    /// By type.
    pub tenders: BTreeMap<String, Decimal>,
}

/// Store and `YYYY-MM-DD`.
pub type StoreDay = (String, String);
/// Store and item.
pub type StoreItem = (String, String);

/// What all tills have to do, and what must come of it.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The tills, by store and workstation.
    pub tills: Vec<TillScript>,
    /// By store and day, then by till.
    pub days: BTreeMap<StoreDay, BTreeMap<String, TillDay>>,
    /// What the movements and sales of an item come to, by store.
    pub stock: BTreeMap<StoreItem, Decimal>,
}

/// The identity of a document within all stores: by its own id, or by the till's numbering.
pub fn key(store_id: &str, document: &Value) -> Option<String> {
    if let Some(id) = document.get("document_id").and_then(Value::as_str) {
        return Some(format!("{store_id}/d/{id}"));
    }
    let text = |field| document.get(field).and_then(Value::as_str);
    let number = document.get("sequence_number")?.as_u64()?;
    Some(format!("{store_id}/t/{}/{}/{number}", text("workstation_id")?, text("business_day_date")?))
}

/// The kind of a transaction's line.
pub fn line_kind(row: &Row) -> &'static str {
    if row.invoice_no.starts_with('C') {
        // What is cancelled comes back, be it a fee: no line of it names a receipt.
        return "return";
    }
    match row.stock_code.as_str() {
        "POST" | "DOT" | "C2" | "BANK CHARGES" | "AMAZONFEE" | "CRUK" => "fee",
        "M" | "m" | "D" | "S" => "other",
        code if code.starts_with("gift_") => "gift_card",
        _ if row.quantity < 0 => "return",
        _ => "sale",
    }
}

/// Whether a row is a correction of the shelf and no line of a sale.
fn is_movement(row: &Row) -> bool {
    row.quantity < 0 && row.unit_price.is_zero() && !row.invoice_no.starts_with('C')
}

/// The type of a movement, from the note that stands in the description.
fn movement_type(note: &str) -> &'static str {
    const LOSS: &[&str] = &[
        "damag",
        "dagam",
        "throw",
        "smash",
        "broke",
        "break",
        "crush",
        "crack",
        "wet",
        "water",
        "rust",
        "mould",
        "missing",
        "lost",
        "mia",
        "destroy",
        "unsale",
        "fault",
        "smudge",
        "can't find",
    ];
    let note = note.to_lowercase();
    if LOSS.iter().any(|word| note.contains(word)) { "loss" } else { "adjustment" }
}

/// Assigns all rows to `tills` tills in each of `stores`.
pub fn script(rows: &[Row], stores: &[String], tills: u64) -> Script {
    let mut invoices: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    let mut order = Vec::new();
    for row in rows {
        let lines = invoices.entry(&row.invoice_no).or_default();
        if lines.is_empty() {
            order.push(row.invoice_no.as_str());
        }
        lines.push(row);
    }
    let mut writer = Writer::new(stores, tills);
    for number in order {
        let lines = invoices.get(number).map(Vec::as_slice).unwrap_or_default();
        writer.invoice(number, lines);
    }
    writer.finish()
}

struct Writer<'a> {
    stores: &'a [String],
    tills: u64,
    script: Script,
    /// What each till sends on each day.
    documents: BTreeMap<(String, String), BTreeMap<String, Vec<Document>>>,
}

impl<'a> Writer<'a> {
    fn new(stores: &'a [String], tills: u64) -> Self {
        let mut documents = BTreeMap::new();
        for store in stores {
            for till in 1..=tills {
                documents.insert((store.clone(), till.to_string()), BTreeMap::new());
            }
        }
        Self { stores, tills, script: Script::default(), documents }
    }

    fn invoice(&mut self, number: &str, rows: &[&Row]) {
        let Some(day) = rows.iter().map(|row| row.day().to_owned()).max() else { return };
        let draw = hash(number);
        let store = usize::try_from(draw % self.stores.len() as u64).ok().and_then(|index| self.stores.get(index));
        let store = store.expect("a remainder is an index").clone();
        let till = (draw / 64 % self.tills + 1).to_string();
        let (movements, lines): (Vec<&Row>, Vec<&Row>) = rows.iter().copied().partition(|row| is_movement(row));
        if !lines.is_empty() {
            let document = self.transaction(&store, &till, &day, number, &lines);
            self.push(&store, &till, &day, Call::Transactions, &document);
        }
        if !movements.is_empty() {
            let document = self.movement(&store, &till, &day, number, &movements);
            self.push(&store, &till, &day, Call::StockMovements, &document);
        }
    }

    fn push(&mut self, store: &str, till: &str, day: &str, call: Call, document: &Value) {
        let key = key(store, document).expect("a document of our own has its identity");
        let of_till = self.documents.get_mut(&(store.to_owned(), till.to_owned())).expect("every till was listed");
        of_till.entry(day.to_owned()).or_default().push(Document { key, call, body: document.to_string() });
    }

    fn transaction(&mut self, store: &str, till: &str, day: &str, number: &str, rows: &[&Row]) -> Value {
        let gross: Decimal = rows.iter().map(|row| extended(row)).sum();
        let tenders = tenders(hash(number) / 4096, gross);
        let of_day =
            self.script.days.entry((store.to_owned(), day.to_owned())).or_default().entry(till.to_owned()).or_default();
        of_day.transactions += 1;
        of_day.gross += gross;
        for (tender, amount) in &tenders {
            *of_day.tenders.entry((*tender).to_owned()).or_default() += amount;
        }
        let sequence_number = of_day.transactions;
        let mut line_items = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let kind = line_kind(row);
            if matches!(kind, "sale" | "return") {
                *self.script.stock.entry((store.to_owned(), row.stock_code.clone())).or_default() -=
                    Decimal::from(row.quantity);
            }
            line_items.push(line(index, kind, row));
        }
        let tenders: Vec<Value> = tenders
            .iter()
            .enumerate()
            .map(|(index, (tender, amount))| json!({"line": index + 1, "type": tender, "amount": money(*amount)}))
            .collect();
        let times = times(rows);
        let mut document = json!({
            "workstation_id": till,
            "business_day_date": day,
            "sequence_number": sequence_number,
            "type": if number.starts_with('C') { "return" } else { "sale" },
            "begin_date_time": times.0,
            "end_date_time": times.1,
            "currency_code": CURRENCY,
            "line_items": line_items,
            "tenders": tenders,
            "totals": {"gross": money(gross)},
        });
        carry(&mut document, number, rows);
        document
    }

    fn movement(&mut self, store: &str, till: &str, day: &str, number: &str, rows: &[&Row]) -> Value {
        let mut line_items = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            *self.script.stock.entry((store.to_owned(), row.stock_code.clone())).or_default() +=
                Decimal::from(row.quantity);
            let quantity = row.quantity.to_string();
            line_items.push(json!({"line": index + 1, "item_id": row.stock_code, "quantity": quantity, "unit": "EA"}));
        }
        let note = rows.first().map(|row| row.description.as_str()).unwrap_or_default();
        let mut document = json!({
            "document_id": format!("movement-{number}"),
            "workstation_id": till,
            "business_day_date": day,
            "type": movement_type(note),
            "end_date_time": times(rows).1,
            "line_items": line_items,
        });
        carry(&mut document, number, rows);
        if let Some(attributes) =
            document.get_mut("attributes").and_then(Value::as_object_mut).filter(|_| !note.is_empty())
        {
            attributes.insert("note".to_owned(), json!(note));
        }
        document
    }

    fn finish(mut self) -> Script {
        for ((store_id, workstation_id), days) in self.documents {
            let mut documents = Vec::new();
            for (day, of_day) in days {
                documents.extend(of_day);
                let total =
                    self.script.days.get(&(store_id.clone(), day.clone())).and_then(|tills| tills.get(&workstation_id));
                documents.extend(total.map(|total| day_close(&store_id, &workstation_id, &day, total)));
            }
            self.script.tills.push(TillScript { store_id, workstation_id, documents });
        }
        self.script
    }
}

fn line(index: usize, kind: &str, row: &Row) -> Value {
    let mut line = json!({
        "line": index + 1,
        "kind": kind,
        "item_id": row.stock_code,
        "quantity": row.quantity.to_string(),
        "unit": "EA",
        "actual_unit_price": row.unit_price.normalize().to_string(),
        "extended_amount": money(extended(row)),
    });
    if let Some(fields) = line.as_object_mut().filter(|_| !row.description.is_empty()) {
        fields.insert("description".to_owned(), json!(row.description));
    }
    line
}

fn day_close(store: &str, till: &str, day: &str, total: &TillDay) -> Document {
    let tenders: Vec<Value> =
        total.tenders.iter().map(|(tender, amount)| json!({"type": tender, "amount": money(*amount)})).collect();
    let document = json!({
        "document_id": format!("close-{till}-{day}"),
        "workstation_id": till,
        "business_day_date": day,
        "end_date_time": format!("{day}T23:00:00"),
        "first_sequence_number": 1,
        "last_sequence_number": total.transactions,
        "totals": [{
            "currency_code": CURRENCY,
            "transactions": total.transactions,
            "gross": money(total.gross),
            "tenders": tenders,
        }],
    });
    let key = key(store, &document).expect("a document of our own has its identity");
    Document { key, call: Call::DayCloses, body: document.to_string() }
}

/// A count of every item of a store, to be recorded before anything else, so that stock on hand has a baseline.
pub fn opening_count(store: &str, counted: &BTreeMap<String, Decimal>) -> Document {
    let line_items: Vec<Value> = counted
        .iter()
        .enumerate()
        .map(|(index, (item, count))| json!({"line": index + 1, "item_id": item, "quantity": count.to_string(), "unit": "EA"}))
        .collect();
    let document = json!({
        "document_id": OPENING_COUNT,
        "business_day_date": "2010-11-30",
        "type": "count",
        "end_date_time": "2010-11-30T22:00:00",
        "line_items": line_items,
    });
    let key = key(store, &document).expect("a document of our own has its identity");
    Document { key, call: Call::StockMovements, body: document.to_string() }
}

/// The id of the opening count in each store.
pub const OPENING_COUNT: &str = "opening-count";

/// What the file knows beside the lines.
fn carry(document: &mut Value, number: &str, rows: &[&Row]) {
    let (Some(fields), Some(first)) = (document.as_object_mut(), rows.first()) else { return };
    let mut attributes = json!({"country": first.country, "invoice_no": number});
    if !first.customer_id.is_empty() {
        // A movement of stock has no customer of its own in the model.
        let owner =
            if fields.contains_key("sequence_number") { Some(&mut *fields) } else { attributes.as_object_mut() };
        owner.map(|owner| owner.insert("customer_id".to_owned(), json!(first.customer_id)));
    }
    fields.insert("attributes".to_owned(), attributes);
}

/// Quantity times price, in whole pence.
fn extended(row: &Row) -> Decimal {
    row.amount().round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

fn money(amount: Decimal) -> String {
    format!("{amount:.2}")
}

fn tenders(draw: u64, gross: Decimal) -> Vec<(&'static str, Decimal)> {
    if gross.is_zero() {
        return Vec::new();
    }
    match draw % 4 {
        0 if gross > Decimal::ZERO => {
            // Paid in notes of five pounds.
            let five = Decimal::from(5);
            let paid = (gross / five).ceil() * five;
            if paid == gross { vec![("cash", paid)] } else { vec![("cash", paid), ("change", gross - paid)] }
        }
        0 => vec![("cash", gross)],
        1 => vec![("account", gross)],
        _ => vec![("card", gross)],
    }
}

/// The first and the last time of an invoice, in the form of the contract.
fn times(rows: &[&Row]) -> (String, String) {
    let iso = |time: Option<&str>| time.unwrap_or_default().replacen(' ', "T", 1);
    let all = || rows.iter().map(|row| row.invoice_date.as_str());
    (iso(all().min()), iso(all().max()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Expected;
    use crate::synthetic;
    use counterfoil_proto::id::StoreId;
    use counterfoil_proto::record::{Context, Kind, prepare};

    fn stores() -> Vec<String> {
        ["A", "B"].map(str::to_owned).to_vec()
    }

    #[test]
    fn every_row_is_one_line_and_identities_are_unique() {
        let synthetic = synthetic::draw(3_000, 11);
        let script = script(&synthetic.rows, &stores(), 3);
        assert_eq!(script.tills.len(), 6);
        let documents: Vec<&Document> = script.tills.iter().flat_map(|till| &till.documents).collect();
        let lines: usize = documents
            .iter()
            .map(|document| serde_json::from_str::<Value>(&document.body).unwrap())
            .filter_map(|document| Some(document.get("line_items")?.as_array()?.len()))
            .sum();
        assert_eq!(lines, synthetic.rows.len());
        let keys: std::collections::BTreeSet<_> = documents.iter().map(|document| &document.key).collect();
        assert_eq!(keys.len(), documents.len());
        assert!(documents.iter().any(|document| document.call == Call::StockMovements));
        assert!(
            script.tills.iter().all(|till| till.documents.last().is_some_and(|last| last.call != Call::Transactions))
        );
    }

    /// What the model says of a document: flags and warnings, or a refusal.
    fn judged(document: &Document) -> Vec<String> {
        let context = Context {
            store_id: StoreId::new("A").unwrap(),
            time_zone: jiff::tz::TimeZone::get("Europe/London").unwrap(),
            day_cutover: jiff::civil::time(4, 0, 0, 0),
            mask_13_digits: false,
        };
        let kind = match document.call {
            Call::Transactions => Kind::TRANSACTION,
            Call::StockMovements => Kind::STOCK_MOVEMENT,
            Call::DayCloses => Kind::DAY_CLOSE,
        };
        match prepare(kind, document.body.as_bytes(), None, &context) {
            Ok(prepared) => prepared
                .envelope
                .flags
                .into_iter()
                .map(|flag| flag.code.into_owned())
                .chain(prepared.warnings)
                .collect(),
            Err(refusal) => vec![format!("{refusal:?} {}", document.body)],
        }
    }

    #[test]
    fn the_model_takes_every_document_and_finds_what_the_rows_say() {
        let rows = synthetic::draw(5_000, 2).rows;
        let script = script(&rows, &["A".to_owned()], 3);
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for document in script.tills.iter().flat_map(|till| &till.documents) {
            for finding in judged(document) {
                *found.entry(finding).or_default() += 1;
            }
        }
        let expected = Expected::of_rows(&rows);
        assert!(expected.unlinked > 100 && expected.negative > 0);
        let expected = [("UNLINKED_RETURN", expected.unlinked), ("NEGATIVE_PRICE", expected.negative)];
        assert_eq!(found, expected.map(|(code, count)| (code.to_owned(), count)).into());
        let counted = BTreeMap::from([("85123A".to_owned(), Decimal::from(7))]);
        assert_eq!(judged(&opening_count("A", &counted)), Vec::<String>::new());
    }

    #[test]
    fn a_till_that_starts_again_sends_the_same_bytes() {
        let rows = synthetic::draw(1_000, 5).rows;
        let [first, second] = [0, 1].map(|_| script(&rows, &stores(), 3));
        for (a, b) in first.tills.iter().zip(&second.tills) {
            assert_eq!(a.documents, b.documents);
        }
    }

    #[test]
    fn tenders_come_to_the_gross() {
        for draw in 0..4 {
            for gross in ["12.34", "15.00", "-3.01", "0.01"] {
                let gross = Decimal::from_str_exact(gross).unwrap();
                assert_eq!(tenders(draw, gross).iter().map(|(_, amount)| amount).sum::<Decimal>(), gross);
            }
        }
    }

    #[test]
    fn notes_say_whether_goods_were_lost() {
        assert_eq!(movement_type("Damaged"), "loss");
        assert_eq!(movement_type("?missing"), "loss");
        assert_eq!(movement_type("sold as set on dotcom"), "adjustment");
        assert_eq!(movement_type(""), "adjustment");
    }
}
