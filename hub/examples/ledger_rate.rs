//! How fast the ledger takes in and posts, beside a COPY of the same bytes into a bare table, in the same run.
//!
//! `cargo run --release -p counterfoil-hub --example ledger_rate -- postgres://… 200000` (or `sqlite:FILE`, without the yardstick).
//! The database should be empty; it is left full.
#![expect(clippy::print_stdout, reason = "it is a command for people")]

use std::error::Error;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use counterfoil_hub::config::{LedgerConfig, Place};
use counterfoil_hub::ledger::{Arrival, Ledger, PostingBounds, SafeWhen, SqlLedger};
use counterfoil_hub::posting::{POSTING_BYTES_MAX, POSTING_RECORDS_MAX};
use counterfoil_proto::id::{AgentId, Epoch, Lane, RecordKey, Seq, SessionId, Source, StoreId};
use counterfoil_proto::message::{Batch, BatchHead, Codec};
use counterfoil_proto::record::{Context, Kind, Record, prepare};
use futures_util::SinkExt;
use tokio::time::Instant;

const BATCH: usize = 256;
const GROUP: usize = 32;
const STORES: u64 = 4;

fn sale(store_id: &StoreId, number: u64) -> Result<Vec<u8>, Box<dyn Error>> {
    let document = format!(
        r#"{{"workstation_id":"{}","business_day_date":"2026-11-{:02}","sequence_number":{number},"type":"sale","end_date_time":"2026-11-23T10:15:40Z","currency_code":"EUR","line_items":[{{"line":1,"kind":"sale","item_id":"85123A","quantity":"1","unit":"EA","actual_unit_price":"1.25","extended_amount":"1.25"}}],"tenders":[{{"line":1,"type":"cash","amount":"1.25"}}],"totals":{{"gross":"1.25"}}}}"#,
        number % 3,
        1 + number / 5_000 % 28
    );
    let context = Context {
        store_id: store_id.clone(),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::Time::midnight(),
        mask_13_digits: false,
    };
    let prepared =
        prepare(Kind::TRANSACTION, document.as_bytes(), None, &context).map_err(|refusal| format!("{refusal:?}"))?;
    Ok(Record { kind: prepared.kind, envelope: prepared.envelope, document: prepared.document }.encode()?)
}

fn arrivals(count: u64) -> Result<Vec<Arrival>, Box<dyn Error>> {
    let mut arrivals = Vec::new();
    let mut first = 1;
    while first * STORES <= count {
        for store in 0..STORES {
            let store_id = StoreId::new(&format!("{store:04}"))?;
            let numbers = first..first + u64::try_from(BATCH)?;
            let records = numbers.map(|number| sale(&store_id, number)).collect::<Result<Vec<_>, _>>()?;
            let key = RecordKey { epoch: Epoch([u8::try_from(store)?; 16]), lane: Lane::Trade, seq: Seq(first) };
            let head = BatchHead {
                session: SessionId([1; 16]),
                first: key,
                count: u32::try_from(BATCH)?,
                codec: Codec::Plain,
                plain_bytes: 0,
            };
            let source = Source { store_id, agent_id: AgentId::new("box1")? };
            arrivals.push(Arrival { source, batch: Batch { head, records } });
        }
        first += u64::try_from(BATCH)?;
    }
    Ok(arrivals)
}

async fn yardstick(url: &str, arrivals: &[Arrival]) -> Result<f64, Box<dyn Error>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    client.batch_execute("DROP TABLE IF EXISTS bare; CREATE TABLE bare (bytes BYTEA NOT NULL)").await?;
    let begun = Instant::now();
    for group in arrivals.chunks(GROUP) {
        client.batch_execute("BEGIN").await?;
        let sink = client.copy_in::<_, Bytes>("COPY bare FROM STDIN BINARY").await?;
        let mut sink = std::pin::pin!(sink);
        let mut buffer = BytesMut::new();
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        for record in group.iter().flat_map(|arrival| &arrival.batch.records) {
            buffer.put_i16(1);
            buffer.put_i32(i32::try_from(record.len())?);
            buffer.put_slice(record);
            if buffer.len() > 64 * 1024 {
                sink.send(buffer.split().freeze()).await?;
            }
        }
        buffer.put_i16(-1);
        sink.send(buffer.split().freeze()).await?;
        sink.finish().await?;
        client.batch_execute("COMMIT").await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    client.batch_execute("DROP TABLE bare").await?;
    driver.abort();
    Ok(seconds)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("which ledger? postgres://… or sqlite:FILE")?;
    let count: u64 = arguments.next().map_or(Ok(200_000), |count| count.parse())?;
    let arrivals = arrivals(count)?;
    let records: usize = arrivals.iter().map(|arrival| arrival.batch.records.len()).sum();
    let bytes: usize = arrivals.iter().flat_map(|arrival| &arrival.batch.records).map(Vec::len).sum();
    let rate = |seconds: f64| f64::from(u32::try_from(records).unwrap_or(u32::MAX)) / seconds;
    println!("{records} records of {} bytes, groups of {}", bytes / records, BATCH * GROUP);
    let place = if let Some(path) = url.strip_prefix("sqlite:") {
        Place::Sqlite(path.into())
    } else {
        println!("bare COPY        {:>9.0} records/s", rate(yardstick(&url, &arrivals).await?));
        Place::Postgres { url: url.clone(), password_file: None, ca_file: None }
    };
    let config = LedgerConfig { place, safe_when: SafeWhen::Stored };
    let ledger = Arc::new(SqlLedger::open(counterfoil_hub::database(&config)?, SafeWhen::Stored).await?);
    let (half, rest) = arrivals.split_at(arrivals.len() / 2);
    let begun = Instant::now();
    for group in half.chunks(GROUP) {
        ledger.take(group).await?;
    }
    println!("intake alone     {:>9.0} records/s", rate(begun.elapsed().as_secs_f64() * 2.0));
    let bounds = PostingBounds { records_max: POSTING_RECORDS_MAX, bytes_max: POSTING_BYTES_MAX, opaque: false };
    let begun = Instant::now();
    while ledger.post(bounds).await?.records > 0 {}
    println!("posting alone    {:>9.0} records/s", rate(begun.elapsed().as_secs_f64() * 2.0));
    let begun = Instant::now();
    let poster = Arc::clone(&ledger);
    let expected = u64::try_from(records)?;
    let posting = tokio::spawn(async move {
        while poster.post(bounds).await.is_ok_and(|done| done.last_position < expected) {
            tokio::task::yield_now().await;
        }
    });
    for group in rest.chunks(GROUP) {
        ledger.take(group).await?;
    }
    println!("intake beside    {:>9.0} records/s", rate(begun.elapsed().as_secs_f64() * 2.0));
    posting.await?;
    println!("both, to the end {:>9.0} records/s", rate(begun.elapsed().as_secs_f64() * 2.0));
    let begun = Instant::now();
    for group in arrivals.chunks(GROUP) {
        ledger.take(group).await?;
    }
    println!("all duplicates   {:>9.0} records/s", rate(begun.elapsed().as_secs_f64()));
    Ok(())
}
