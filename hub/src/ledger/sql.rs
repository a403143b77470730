//! What the ledger needs of a database: transactions with row locks, statements in bulk, and nothing else.
//!
//! Invariant: a [`Transaction`] that is dropped without [`Transaction::commit`] leaves no trace. The SQL is the part of the
//! language that PostgreSQL and SQLite read alike, with `$n` parameters; `FOR UPDATE` at the end of a statement is left out
//! where a transaction is alone anyway. Nothing here knows what the tables mean.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use super::LedgerError;

/// What a database call gives, later.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// A column of a row, or a parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing.
    Null,
    /// Any integer column.
    Int(i64),
    /// Bytes, and 16-byte identifiers.
    Bytes(Vec<u8>),
    /// Text. A NUL, which PostgreSQL cannot hold, becomes U+FFFD on the way in.
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u64> for Value {
    /// Numbers above `i64::MAX` do not occur: no counter gets there in the life of the machine; they would stay there.
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}
impl<const N: usize> From<[u8; N]> for Value {
    fn from(value: [u8; N]) -> Self {
        Self::Bytes(value.to_vec())
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row, read column by column from the left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(pub Vec<Value>);

impl Row {
    /// Starts reading.
    pub fn read(self) -> RowReader {
        RowReader(self.0.into_iter())
    }
}

/// See [`Row::read`]. Every call takes one column.
#[derive(Debug)]
pub struct RowReader(std::vec::IntoIter<Value>);

impl RowReader {
    fn next(&mut self) -> Result<Value, LedgerError> {
        self.0.next().ok_or(LedgerError::Shape)
    }

    /// An integer that may be missing.
    pub fn int_or_null(&mut self) -> Result<Option<i64>, LedgerError> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Int(value) => Ok(Some(value)),
            Value::Bytes(_) | Value::Text(_) => Err(LedgerError::Shape),
        }
    }

    /// An integer.
    pub fn int(&mut self) -> Result<i64, LedgerError> {
        self.int_or_null()?.ok_or(LedgerError::Shape)
    }

    /// An integer that is not negative.
    pub fn count(&mut self) -> Result<u64, LedgerError> {
        u64::try_from(self.int()?).map_err(|_| LedgerError::Shape)
    }

    /// Text that may be missing.
    pub fn text_or_null(&mut self) -> Result<Option<String>, LedgerError> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Text(value) => Ok(Some(value)),
            Value::Bytes(_) | Value::Int(_) => Err(LedgerError::Shape),
        }
    }

    /// Text.
    pub fn text(&mut self) -> Result<String, LedgerError> {
        self.text_or_null()?.ok_or(LedgerError::Shape)
    }

    /// Bytes that may be missing.
    pub fn bytes_or_null(&mut self) -> Result<Option<Vec<u8>>, LedgerError> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Bytes(value) => Ok(Some(value)),
            Value::Text(_) | Value::Int(_) => Err(LedgerError::Shape),
        }
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Result<Vec<u8>, LedgerError> {
        self.bytes_or_null()?.ok_or(LedgerError::Shape)
    }

    /// Bytes of a fixed length.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], LedgerError> {
        self.bytes()?.try_into().map_err(|_| LedgerError::Shape)
    }

    /// Bytes of a fixed length that may be missing.
    pub fn array_or_null<const N: usize>(&mut self) -> Result<Option<[u8; N]>, LedgerError> {
        let bytes = self.bytes_or_null()?;
        bytes.map(|bytes| bytes.try_into().map_err(|_| LedgerError::Shape)).transpose()
    }
}

/// Who works on the ledger; each has a connection of its own, so that none waits for another's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Stores what arrives.
    Intake,
    /// Assigns positions and interprets.
    Posting,
    /// Everything that is seldom: hello, presence, positions, start and alarm.
    Desk,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Intake, Self::Posting, Self::Desk];

    /// The role's number in the ledger.
    pub const fn code(self) -> i64 {
        match self {
            Self::Intake => 0,
            Self::Posting => 1,
            Self::Desk => 2,
        }
    }
}

/// The form of a column that rows are copied into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 64 bits.
    Long,
    /// 32 bits.
    Int,
    /// 16 bits.
    Short,
    /// Bytes.
    Bytes,
    /// 16 bytes.
    Id,
}

/// A table that rows are copied into in bulk.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, in the order of the rows' values.
    pub columns: &'static [(&'static str, Form)],
}

/// A database.
pub trait Database: Debug + Send + Sync {
    /// Brings the schema up to date.
    fn migrate(&self) -> Work<'_, ()>;
    /// Begins a transaction on the role's own connection; waits while the role is in another one.
    fn begin(&self, role: Role) -> Work<'_, Box<dyn Transaction>>;
    /// Reads what is committed, outside of any transaction.
    fn read(&self, sql: &'static str, params: Vec<Value>) -> Work<'_, Vec<Row>>;
    /// The same for each set of parameters.
    fn read_many(&self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, Vec<Vec<Row>>>;
    /// For people: what kind of database.
    fn name(&self) -> &'static str;
}

/// A transaction. After an error it can only be dropped.
pub trait Transaction: Send {
    /// One statement, and its rows.
    fn query(&mut self, sql: &'static str, params: Vec<Value>) -> Work<'_, Vec<Row>>;
    /// The same statement for each set of parameters, in their order.
    fn query_many(&mut self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, Vec<Vec<Row>>>;
    /// Rows until `bytes_max` bytes were read; then the rest is left. The flag says whether something was left.
    fn query_some(&mut self, sql: &'static str, params: Vec<Value>, bytes_max: usize) -> Work<'_, (Vec<Row>, bool)>;
    /// Rows of `sql`, which ends in `WHERE key`, for any of the keys; in no order.
    fn lookup(&mut self, sql: &'static str, keys: Vec<[u8; 16]>) -> Work<'_, Vec<Row>>;
    /// A statement without rows for each set of parameters, in their order.
    fn execute_many(&mut self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, ()>;
    /// Appends rows.
    fn copy(&mut self, table: &'static Table, rows: Vec<Row>) -> Work<'_, ()>;
    /// Makes it durable. After an error nobody knows whether it is.
    fn commit(self: Box<Self>) -> Work<'static, ()>;
    /// Undoes it.
    fn rollback(self: Box<Self>) -> Work<'static, ()>;
}
