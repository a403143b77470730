//! SQLite: a thread that owns the connection that writes, another with one that reads.
//!
//! Invariant: write-ahead log with a full sync at every commit. One transaction at a time; one that was abandoned is undone before the next
//! begins. Nothing here knows what the tables mean.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};

use super::LedgerError;
use super::schema::{MIGRATIONS, Words};
use super::sql::{Database, Role, Row, Table, Transaction, Value, Work};

/// Jobs that wait for a thread; whoever sends more waits.
const JOBS_MAX: usize = 64;

/// The words of this dialect.
pub const WORDS: Words =
    Words { identity: "INTEGER PRIMARY KEY", bytes: "BLOB", id: "BLOB", hot: "", clustered: "WITHOUT ROWID" };

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// An SQLite database in a file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    writer: Thread,
    reader: Thread,
    turn: Arc<Mutex<()>>,
}

#[derive(Clone, Debug)]
struct Thread {
    jobs: mpsc::Sender<Job>,
}

impl Thread {
    fn start(path: &Path, name: &str) -> Result<Self, LedgerError> {
        let connection = open(path).map_err(refused)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_MAX);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(job) = waiting.blocking_recv() {
                    job(&connection);
                }
            })
            .map_err(|error| LedgerError::Unreachable { why: error.to_string() })?;
        Ok(Self { jobs })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have gone away; a transaction of theirs is undone when the next begins.
            drop(answer.send(work(connection)));
        });
        let ended = || LedgerError::Unreachable { why: "the thread of the database ended".to_owned() };
        self.jobs.send(job).await.map_err(|_| ended())?;
        result.await.map_err(|_| ended())?.map_err(refused)
    }
}

/// Prepared statements keep their plan, whatever is bound: planning anew for each value costs more than the statements do.
///
/// # Errors
///
/// None in a library that knows the setting (3.20).
pub fn plan_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA cache_size = -32000; PRAGMA journal_size_limit = 67108864;",
    )?;
    plan_once(&connection)?;
    Ok(connection)
}

impl Sqlite {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self {
            path: path.to_owned(),
            writer: Thread::start(path, "ledger-writer")?,
            reader: Thread::start(path, "ledger-reader")?,
            turn: Arc::new(Mutex::new(())),
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Database for Sqlite {
    fn migrate(&self) -> Work<'_, ()> {
        Box::pin(async move {
            let newer = self.writer.run(|connection| {
                connection.execute_batch("BEGIN IMMEDIATE")?;
                let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
                let known = usize::try_from(found).unwrap_or(usize::MAX);
                let Some(waiting) = MIGRATIONS.get(known..) else {
                    connection.execute_batch("ROLLBACK")?;
                    return Ok(Some(found));
                };
                for migration in waiting {
                    connection.execute_batch(&WORDS.fill(migration))?;
                }
                let newest = MIGRATIONS.len();
                connection.execute_batch(&format!("PRAGMA user_version = {newest}; COMMIT"))?;
                Ok(None)
            });
            newer.await?.map_or(Ok(()), |version| Err(LedgerError::Newer { version }))
        })
    }

    fn begin(&self, _: Role) -> Work<'_, Box<dyn Transaction>> {
        Box::pin(async move {
            // It is there before it begins, so that it is undone if whoever asked goes away meanwhile.
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let transaction = SqliteTransaction { thread: self.writer.clone(), _turn: turn };
            let begin = |connection: &Connection| {
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK")?;
                }
                connection.execute_batch("BEGIN IMMEDIATE")
            };
            self.writer.run(begin).await?;
            Ok(Box::new(transaction) as Box<dyn Transaction>)
        })
    }

    fn read(&self, sql: &'static str, params: Vec<Value>) -> Work<'_, Vec<Row>> {
        Box::pin(async move { self.reader.run(move |connection| rows(connection, sql, &params)).await })
    }

    fn read_many(&self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, Vec<Vec<Row>>> {
        let work = move |connection: &Connection| params.iter().map(|params| rows(connection, sql, params)).collect();
        Box::pin(async move { self.reader.run(work).await })
    }

    fn name(&self) -> &'static str {
        "SQLite"
    }
}

struct SqliteTransaction {
    thread: Thread,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        let undo: Job = Box::new(|connection| {
            if !connection.is_autocommit() {
                drop(connection.execute_batch("ROLLBACK"));
            }
        });
        // Where the thread is that far behind, the next transaction undoes this one.
        drop(self.thread.jobs.try_send(undo));
    }
}

impl Transaction for SqliteTransaction {
    fn query(&mut self, sql: &'static str, params: Vec<Value>) -> Work<'_, Vec<Row>> {
        Box::pin(async move { self.thread.run(move |connection| rows(connection, sql, &params)).await })
    }

    fn query_many(&mut self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, Vec<Vec<Row>>> {
        let work = move |connection: &Connection| params.iter().map(|params| rows(connection, sql, params)).collect();
        Box::pin(async move { self.thread.run(work).await })
    }

    fn query_some(&mut self, sql: &'static str, params: Vec<Value>, bytes_max: usize) -> Work<'_, (Vec<Row>, bool)> {
        let work = move |connection: &Connection| some(connection, sql, &params, bytes_max);
        Box::pin(async move { self.thread.run(work).await })
    }

    fn lookup(&mut self, sql: &'static str, keys: Vec<[u8; 16]>) -> Work<'_, Vec<Row>> {
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare(&format!("{sql} = ?1"))?;
            let mut found = Vec::new();
            for key in &keys {
                statement.raw_bind_parameter(1, key.as_slice())?;
                found.append(&mut collect(&mut statement, usize::MAX)?.0);
            }
            Ok(found)
        };
        Box::pin(async move { self.thread.run(work).await })
    }

    fn execute_many(&mut self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, ()> {
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare(&dialect(sql))?;
            params.iter().try_for_each(|params| {
                bind(&mut statement, params)?;
                statement.raw_execute().map(|_| ())
            })
        };
        Box::pin(async move { self.thread.run(work).await })
    }

    fn copy(&mut self, table: &'static Table, rows: Vec<Row>) -> Work<'_, ()> {
        let work = move |connection: &Connection| {
            let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
            let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
            let text = format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), places.join(", "));
            let mut statement = connection.prepare(&text)?;
            rows.iter().try_for_each(|row| {
                bind(&mut statement, &row.0)?;
                statement.raw_execute().map(|_| ())
            })
        };
        Box::pin(async move { self.thread.run(work).await })
    }

    fn commit(self: Box<Self>) -> Work<'static, ()> {
        Box::pin(async move { self.thread.run(|connection| connection.execute_batch("COMMIT")).await })
    }

    fn rollback(self: Box<Self>) -> Work<'static, ()> {
        Box::pin(async move { self.thread.run(|connection| connection.execute_batch("ROLLBACK")).await })
    }
}

/// A transaction here is alone: rows need no locks. Parameters are written `?n`.
fn dialect(sql: &str) -> String {
    let sql = sql.trim_end().trim_end_matches("SKIP LOCKED").trim_end();
    sql.trim_end_matches("FOR UPDATE").replace('$', "?")
}

fn rows(connection: &Connection, sql: &str, params: &[Value]) -> rusqlite::Result<Vec<Row>> {
    some(connection, sql, params, usize::MAX).map(|(rows, _)| rows)
}

fn some(connection: &Connection, sql: &str, params: &[Value], bytes_max: usize) -> rusqlite::Result<(Vec<Row>, bool)> {
    let mut statement = connection.prepare(&dialect(sql))?;
    bind(&mut statement, params)?;
    collect(&mut statement, bytes_max)
}

/// Binds the parameters of a statement in their order.
pub fn bind(statement: &mut rusqlite::Statement<'_>, params: &[Value]) -> rusqlite::Result<()> {
    for (index, param) in params.iter().enumerate() {
        let place = index.saturating_add(1);
        match param {
            Value::Null => statement.raw_bind_parameter(place, rusqlite::types::Null)?,
            Value::Int(value) => statement.raw_bind_parameter(place, value)?,
            Value::Bytes(value) => statement.raw_bind_parameter(place, value.as_slice())?,
            Value::Text(value) => statement.raw_bind_parameter(place, value.as_str())?,
        }
    }
    Ok(())
}

/// The rows of a bound statement, until they hold `bytes_max` bytes; and whether there are more.
pub fn collect(statement: &mut rusqlite::Statement<'_>, bytes_max: usize) -> rusqlite::Result<(Vec<Row>, bool)> {
    let columns = statement.column_count();
    let (mut found, mut bytes) = (Vec::new(), 0_usize);
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if bytes >= bytes_max {
            return Ok((found, true));
        }
        let mut values = Vec::with_capacity(columns);
        for column in 0..columns {
            values.push(match row.get_ref(column)? {
                ValueRef::Integer(value) => Value::Int(value),
                ValueRef::Blob(value) => Value::Bytes(value.to_vec()),
                ValueRef::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
                // No column holds a fraction.
                ValueRef::Null | ValueRef::Real(_) => Value::Null,
            });
            bytes = bytes.saturating_add(match values.last() {
                Some(Value::Bytes(value)) => value.len(),
                Some(Value::Text(value)) => value.len(),
                Some(Value::Null | Value::Int(_)) | None => 8,
            });
        }
        found.push(Row(values));
    }
    Ok((found, false))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn refused(error: rusqlite::Error) -> LedgerError {
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => LedgerError::Doubled { why },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Busy { why },
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied,
        ) => LedgerError::Unreachable { why },
        _ => LedgerError::Refused { why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_the_moment_is_told_from_what_would_fail_again() {
        let of = |code: i32| {
            refused(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some("told to".to_owned())))
        };
        for code in [rusqlite::ffi::SQLITE_BUSY, rusqlite::ffi::SQLITE_LOCKED] {
            assert!(matches!(of(code), LedgerError::Busy { .. }), "{code}");
        }
        for code in [
            rusqlite::ffi::SQLITE_CANTOPEN,
            rusqlite::ffi::SQLITE_FULL,
            rusqlite::ffi::SQLITE_IOERR,
            rusqlite::ffi::SQLITE_READONLY,
            rusqlite::ffi::SQLITE_CORRUPT,
            rusqlite::ffi::SQLITE_NOTADB,
            rusqlite::ffi::SQLITE_NOMEM,
            rusqlite::ffi::SQLITE_PERM,
        ] {
            assert!(matches!(of(code), LedgerError::Unreachable { .. }), "{code}");
        }
        assert!(matches!(of(rusqlite::ffi::SQLITE_CONSTRAINT), LedgerError::Doubled { .. }));
        assert!(matches!(of(rusqlite::ffi::SQLITE_ERROR), LedgerError::Refused { .. }));
        assert!(matches!(refused(rusqlite::Error::InvalidQuery), LedgerError::Refused { .. }));
    }
}
