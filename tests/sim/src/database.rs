//! The hubs' database server: `SQLite` in memory, one transaction at a time, on the simulation's thread.
//!
//! Invariant: whoever asks gets their turn in the order in which they are polled; a transaction that is dropped, or whose database was
//! set back under it, leaves no trace. Between statements others may be polled: where that happens a draw decides. Nothing here knows
//! what the tables mean; the SQL is the hub's own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use counterfoil_hub::ledger::LedgerError;
use counterfoil_hub::ledger::schema::MIGRATIONS;
use counterfoil_hub::ledger::sql::{Database, Role, Row, Table, Transaction, Value, Work};
use counterfoil_hub::ledger::sqlite::{WORDS, bind, collect, plan_once};
use rusqlite::{Connection, MAIN_DB};

use crate::random::Random;

struct Server {
    connection: Connection,
    /// Counts the times that it was set back.
    life: u64,
    is_busy: bool,
    /// Somebody waits for nothing but another turn of the scheduler.
    is_awaited: bool,
    random: Random,
    /// Of thousand statements, so many let the others go first.
    yields: u64,
    /// Somebody asked while it was busy, and nobody had a turn since.
    was_wanted: bool,
}

/// The server, as its clients see it.
#[derive(Clone)]
pub(crate) struct SimDatabase {
    server: Arc<Mutex<Server>>,
}

impl std::fmt::Debug for SimDatabase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SimDatabase")
    }
}

/// A ledger with its schema and nothing in it, made once.
fn template() -> &'static [u8] {
    static TEMPLATE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut connection = Connection::open_in_memory().expect("a database in memory");
        for migration in MIGRATIONS {
            connection.execute_batch(&WORDS.fill(migration)).expect("the hub's own schema");
        }
        connection.serialize(MAIN_DB).expect("it can be written down").to_vec()
    });
    &TEMPLATE
}

fn load(bytes: &[u8]) -> Connection {
    let mut connection = Connection::open_in_memory().expect("a database in memory");
    connection.deserialize_read_exact(MAIN_DB, bytes, bytes.len(), false).expect("what was written down is read");
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;").expect("known pragmas");
    plan_once(&connection).expect("a setting that the library knows");
    connection.set_prepared_statement_cache_capacity(256);
    connection
}

impl SimDatabase {
    /// An empty ledger; `yields` of thousand statements let other clients go first.
    pub(crate) fn new(random: Random, yields: u64) -> Self {
        Self::of(template(), random, yields)
    }

    /// A copy that nobody else has.
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        Self::of(bytes, Random::new(0, "copy"), 0)
    }

    fn of(bytes: &[u8], random: Random, yields: u64) -> Self {
        let server = Server {
            connection: load(bytes),
            life: 0,
            is_busy: false,
            is_awaited: false,
            random,
            yields,
            was_wanted: false,
        };
        Self { server: Arc::new(Mutex::new(server)) }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for nothing but another turn of the scheduler.
    pub(crate) fn take_awaited(&self) -> bool {
        std::mem::take(&mut self.server().is_awaited)
    }

    /// From now on nobody lets others go first.
    pub(crate) fn calm(&self) {
        self.server().yields = 0;
    }

    /// Everything that is committed; `None` while a transaction is open.
    pub(crate) fn backup(&self) -> Option<Vec<u8>> {
        let mut server = self.server();
        if server.is_busy {
            return None;
        }
        Some(server.connection.serialize(MAIN_DB).expect("it can be written down").to_vec())
    }

    /// Sets it back. Open transactions are lost.
    pub(crate) fn restore(&self, bytes: &[u8]) {
        let mut server = self.server();
        server.connection = load(bytes);
        server.life += 1;
        server.is_busy = false;
    }

    /// A number that a query of the checkers' own gives.
    pub(crate) fn count(&self, sql: &str) -> i64 {
        let server = self.server();
        server.connection.query_row(sql, [], |row| row.get(0)).expect("a query of our own")
    }

    /// Lets others go first, where a draw says so.
    async fn yields(&self) {
        let mut left = {
            let mut server = self.server();
            let yields = server.yields;
            if server.random.chance(yields) { server.random.between(1, 3) } else { 0 }
        };
        std::future::poll_fn(|_| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            self.server().is_awaited = true;
            Poll::Pending
        })
        .await;
    }

    /// Waits until no transaction is open, and does something. Who asks anew where another was turned away lets that one go first, in half
    /// of all cases.
    async fn alone<T>(&self, mut work: impl FnMut(&mut Server) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.yields().await;
        let mut is_new = true;
        std::future::poll_fn(|_| {
            let mut server = self.server();
            let is_polite = std::mem::take(&mut is_new) && server.was_wanted && server.random.chance(500);
            if server.is_busy || is_polite {
                server.is_awaited = true;
                server.was_wanted |= server.is_busy;
                return Poll::Pending;
            }
            server.was_wanted = false;
            Poll::Ready(work(&mut server))
        })
        .await
    }
}

impl Database for SimDatabase {
    fn migrate(&self) -> Work<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn begin(&self, _: Role) -> Work<'_, Box<dyn Transaction>> {
        Box::pin(async move {
            let life = self
                .alone(|server| {
                    server.connection.execute_batch("BEGIN").map_err(|error| refused(&error))?;
                    server.is_busy = true;
                    Ok(server.life)
                })
                .await?;
            Ok(Box::new(SimTransaction { database: self.clone(), life, is_open: true }) as Box<dyn Transaction>)
        })
    }

    fn read(&self, sql: &'static str, params: Vec<Value>) -> Work<'_, Vec<Row>> {
        Box::pin(async move { self.alone(|server| server.some(sql, &params, usize::MAX)).await.map(|(rows, _)| rows) })
    }

    fn read_many(&self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, Vec<Vec<Row>>> {
        Box::pin(async move {
            let many = |server: &mut Server| {
                params.iter().map(|params| server.some(sql, params, usize::MAX).map(|(rows, _)| rows)).collect()
            };
            self.alone(many).await
        })
    }

    fn name(&self) -> &'static str {
        "SQLite in memory"
    }
}

impl Server {
    fn some(&mut self, sql: &'static str, params: &[Value], bytes_max: usize) -> Result<(Vec<Row>, bool), LedgerError> {
        let text = dialect(sql);
        let work = || -> rusqlite::Result<(Vec<Row>, bool)> {
            let mut statement = self.connection.prepare_cached(&text)?;
            bind(&mut statement, params)?;
            collect(&mut statement, bytes_max)
        };
        work().map_err(|error| refused(&error))
    }

    fn execute(&mut self, text: &str, rows: &[Vec<Value>]) -> Result<(), LedgerError> {
        let work = || -> rusqlite::Result<()> {
            let mut statement = self.connection.prepare_cached(text)?;
            rows.iter().try_for_each(|params| {
                bind(&mut statement, params)?;
                statement.raw_execute().map(|_| ())
            })
        };
        work().map_err(|error| refused(&error))
    }
}

struct SimTransaction {
    database: SimDatabase,
    life: u64,
    is_open: bool,
}

impl SimTransaction {
    fn end(&mut self, sql: &str) -> Result<(), LedgerError> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        let mut server = self.database.server();
        if server.life != self.life {
            return Err(lost());
        }
        server.is_busy = false;
        server.connection.execute_batch(sql).map_err(|error| refused(&error))
    }

    async fn on<T>(&self, work: impl FnOnce(&mut Server) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.database.yields().await;
        let mut server = self.database.server();
        if server.life == self.life { work(&mut server) } else { Err(lost()) }
    }
}

impl Drop for SimTransaction {
    fn drop(&mut self) {
        // A database that was set back has nothing to undo.
        drop(self.end("ROLLBACK"));
    }
}

impl Transaction for SimTransaction {
    fn query(&mut self, sql: &'static str, params: Vec<Value>) -> Work<'_, Vec<Row>> {
        Box::pin(async move { self.on(|server| server.some(sql, &params, usize::MAX)).await.map(|(rows, _)| rows) })
    }

    fn query_many(&mut self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, Vec<Vec<Row>>> {
        let many = move |server: &mut Server| {
            params.iter().map(|params| server.some(sql, params, usize::MAX).map(|(rows, _)| rows)).collect()
        };
        Box::pin(async move { self.on(many).await })
    }

    fn query_some(&mut self, sql: &'static str, params: Vec<Value>, bytes_max: usize) -> Work<'_, (Vec<Row>, bool)> {
        Box::pin(async move { self.on(|server| server.some(sql, &params, bytes_max)).await })
    }

    fn lookup(&mut self, sql: &'static str, keys: Vec<[u8; 16]>) -> Work<'_, Vec<Row>> {
        let each = move |server: &mut Server| {
            let text = format!("{sql} = ?1");
            let work = || -> rusqlite::Result<Vec<Row>> {
                let mut statement = server.connection.prepare_cached(&text)?;
                let mut found = Vec::new();
                for key in &keys {
                    statement.raw_bind_parameter(1, key.as_slice())?;
                    found.append(&mut collect(&mut statement, usize::MAX)?.0);
                }
                Ok(found)
            };
            work().map_err(|error| refused(&error))
        };
        Box::pin(async move { self.on(each).await })
    }

    fn execute_many(&mut self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, ()> {
        let each = move |server: &mut Server| {
            let text = dialect(sql);
            server.execute(&text, &params)
        };
        Box::pin(async move { self.on(each).await })
    }

    fn copy(&mut self, table: &'static Table, rows: Vec<Row>) -> Work<'_, ()> {
        let each = move |server: &mut Server| {
            let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
            let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
            let text = format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), places.join(", "));
            let rows: Vec<Vec<Value>> = rows.into_iter().map(|row| row.0).collect();
            server.execute(&text, &rows)
        };
        Box::pin(async move { self.on(each).await })
    }

    fn commit(mut self: Box<Self>) -> Work<'static, ()> {
        Box::pin(async move {
            self.database.yields().await;
            self.end("COMMIT")
        })
    }

    fn rollback(mut self: Box<Self>) -> Work<'static, ()> {
        Box::pin(async move { self.end("ROLLBACK") })
    }
}

/// The statement as `SQLite` reads it; a transaction here is alone, so rows need no locks.
fn dialect(sql: &str) -> String {
    let sql = sql.trim_end().trim_end_matches("SKIP LOCKED").trim_end();
    sql.trim_end_matches("FOR UPDATE").replace('$', "?")
}

fn lost() -> LedgerError {
    LedgerError::Unreachable { why: "the server went away".to_owned() }
}

fn refused(error: &rusqlite::Error) -> LedgerError {
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => LedgerError::Doubled { why },
        Some(_) | None => LedgerError::Refused { why },
    }
}
