//! Returns beyond what was bought, at the hub alone: the documents of a whole data set into a ledger, without agents between.
//!
//! Made-up sales always; the Online Retail set as well where `COUNTERFOIL_DATA` names the directory in which it lies.

use std::collections::BTreeMap;
use std::path::Path;

use counterfoil_hub::ledger::postgres::Postgres as Database;
use counterfoil_hub::ledger::sqlite::Sqlite;
use counterfoil_hub::ledger::{Arrival, Ground, Ledger as _, PostingBounds, ReturnsQuery, SafeWhen, SqlLedger};
use counterfoil_proto::id::{AgentId, Epoch, Lane, RecordKey, Seq, SessionId, Source, StoreId};
use counterfoil_proto::message::{Batch, BatchHead, Codec};
use counterfoil_proto::record::{Context, Kind, Record, flag, prepare};
use world::findings::Expected;
use world::postgres::Postgres;
use world::retail_csv::{Row, read};
use world::sales::{Call, script};
use world::synthetic;

/// Sends the documents of all tills, each till an agent of its own, and posts them. Gives what was flagged.
async fn fill(ledger: &SqlLedger, rows: &[Row]) -> BTreeMap<String, u64> {
    let mut flagged: BTreeMap<String, u64> = BTreeMap::new();
    let stores: Vec<String> = ["0001", "0002"].map(str::to_owned).to_vec();
    for (till, number) in script(rows, &stores, 2).tills.iter().zip(1_u8..) {
        let store_id = StoreId::new(&till.store_id).unwrap();
        let context = Context {
            store_id: store_id.clone(),
            time_zone: jiff::tz::TimeZone::get("Europe/London").unwrap(),
            day_cutover: jiff::civil::time(4, 0, 0, 0),
            mask_13_digits: false,
        };
        let source = Source { store_id, agent_id: AgentId::new(&format!("box{number}")).unwrap() };
        let records: Vec<Vec<u8>> = till
            .documents
            .iter()
            .filter_map(|document| {
                let kind = match document.call {
                    Call::Transactions => Kind::TRANSACTION,
                    Call::StockMovements => Kind::STOCK_MOVEMENT,
                    Call::DayCloses => return None,
                };
                let prepared = prepare(kind, document.body.as_bytes(), None, &context).unwrap();
                for flag in &prepared.envelope.flags {
                    *flagged.entry(flag.code.clone().into_owned()).or_default() += 1;
                }
                let record = Record { kind: prepared.kind, envelope: prepared.envelope, document: prepared.document };
                Some(record.encode().unwrap())
            })
            .collect();
        let mut first = 1;
        for chunk in records.chunks(500) {
            let key = RecordKey { epoch: Epoch([number; 16]), lane: Lane::Trade, seq: Seq(first) };
            let count = u32::try_from(chunk.len()).unwrap();
            let session = SessionId([number; 16]);
            let head = BatchHead { session, first: key, count, codec: Codec::Plain, plain_bytes: 0 };
            let batch = Batch { head, records: chunk.to_vec() };
            ledger.take(&[Arrival { source: source.clone(), batch }]).await.unwrap();
            first += u64::from(count);
        }
    }
    let bounds = PostingBounds { records_max: 2_000, bytes_max: 8 << 20, opaque: false };
    while ledger.post(bounds).await.unwrap().more {}
    flagged
}

async fn beyond(ledger: &SqlLedger) -> u64 {
    let query = ReturnsQuery {
        store_id: None,
        customer_id: None,
        beyond: Some(Ground::AtPrice),
        after: (0, 0),
        limit: 1_000_000,
    };
    ledger.returns(&query).await.unwrap().len() as u64
}

async fn judged(ledger: &SqlLedger, rows: &[Row]) {
    let expected = Expected::of_rows(rows);
    assert!(expected.beyond > 0 && expected.negative > 0);
    let wanted = [(flag::UNLINKED_RETURN, expected.unlinked), (flag::NEGATIVE_PRICE, expected.negative)];
    assert_eq!(fill(ledger, rows).await, wanted.map(|(code, count)| (code.to_owned(), count)).into());
    assert_eq!(beyond(ledger).await, expected.beyond);
}

async fn sqlite(directory: &Path) -> SqlLedger {
    SqlLedger::open(Box::new(Sqlite::open(&directory.join("hub.db")).unwrap()), SafeWhen::Stored).await.unwrap()
}

#[tokio::test]
async fn returns_beyond_what_was_bought_are_those_of_the_plain_rule() {
    let rows = synthetic::draw(8_000, 3).rows;
    let directory = tempfile::tempdir().unwrap();
    judged(&sqlite(directory.path()).await, &rows).await;
    let server = Postgres::new().await;
    let url = server.create_database("returns").await;
    let database = Database::new(url.parse().unwrap(), None);
    judged(&SqlLedger::open(Box::new(database), SafeWhen::Stored).await.unwrap(), &rows).await;
}

#[tokio::test]
async fn the_online_retail_set_has_1517_of_them() {
    let Some(data) = std::env::var_os("COUNTERFOIL_DATA") else {
        eprintln!("Made-up sales only: COUNTERFOIL_DATA names no directory with online-retail/");
        return;
    };
    let rows = read(&Path::new(&data).join("online-retail/online-retail.csv.zst"), usize::MAX).unwrap();
    assert_eq!(rows.len(), 541_909);
    let directory = tempfile::tempdir().unwrap();
    judged(&sqlite(directory.path()).await, &rows).await;
}
