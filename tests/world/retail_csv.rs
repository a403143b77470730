//! A CSV in the shape of the Online Retail data set, read as it is: rows with exact numbers, in the order of the file.
//!
//! Invariant: nothing is dropped, merged or repaired. A file that cannot be read whole is refused with the line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// A line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Six digits; `C…` for a cancellation, `A…` for an adjustment of bad debt.
    #[serde(rename = "InvoiceNo")]
    pub invoice_no: String,
    /// The item, or a code for something that is none.
    #[serde(rename = "StockCode")]
    pub stock_code: String,
    /// What the item is called, or a note.
    #[serde(rename = "Description")]
    pub description: String,
    /// Negative for what came back or was written off.
    #[serde(rename = "Quantity")]
    pub quantity: i64,
    /// `YYYY-MM-DD HH:MM:SS`, local, without a zone.
    #[serde(rename = "InvoiceDate")]
    pub invoice_date: String,
    /// GBP; may have more places than the currency.
    #[serde(rename = "UnitPrice", with = "text_decimal")]
    pub unit_price: Decimal,
    /// Empty where it is not known.
    #[serde(rename = "CustomerID")]
    pub customer_id: String,
    /// Of the customer.
    #[serde(rename = "Country")]
    pub country: String,
}

impl Row {
    /// `YYYY-MM-DD`.
    pub fn day(&self) -> &str {
        self.invoice_date.get(..10).unwrap_or_default()
    }

    /// Quantity times unit price, exact.
    pub fn amount(&self) -> Decimal {
        Decimal::from(self.quantity) * self.unit_price
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// The file cannot be opened or unpacked.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A line is not a row.
    #[error("{path} is not in the shape of Online Retail: {source}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: csv::Error,
    },
    /// A date that is none.
    #[error("{path}, row {row}: InvoiceDate must be YYYY-MM-DD HH:MM:SS", path = path.display())]
    Date {
        /// The file.
        path: PathBuf,
        /// From 1, the header not counted.
        row: usize,
    },
}

/// Reads the rows of a file, `.csv` or `.csv.zst`; at most `rows_max` of them.
pub fn read(path: &Path, rows_max: usize) -> Result<Vec<Row>, CsvError> {
    let unreadable = |source| CsvError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let reader: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "zst") {
        Box::new(zstd::Decoder::new(file).map_err(unreadable)?)
    } else {
        Box::new(std::io::BufReader::new(file))
    };
    let mut rows = Vec::new();
    for row in csv::Reader::from_reader(reader).into_deserialize::<Row>().take(rows_max) {
        let row = row.map_err(|source| CsvError::Row { path: path.to_owned(), source })?;
        if jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", &row.invoice_date).is_err() {
            return Err(CsvError::Date { path: path.to_owned(), row: rows.len() + 1 });
        }
        rows.push(row);
    }
    Ok(rows)
}

/// A decimal as text, so that no float ever touches it.
mod text_decimal {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        let text = String::deserialize(deserializer)?;
        Decimal::from_str_exact(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn read_text(text: &str) -> Result<Vec<Row>, CsvError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rows.csv");
        std::fs::write(&file, format!("{HEADER}{text}")).unwrap();
        read(&file, usize::MAX)
    }

    #[test]
    fn numbers_are_exact_and_text_is_kept() {
        let rows = read_text("C1,PADS,\"PADS, \"\"ALL\"\"\",-3,2011-01-02 03:04:05,0.001,,EIRE\n").unwrap();
        let [row] = rows.as_slice() else { panic!("one row") };
        assert_eq!(
            (row.description.as_str(), row.day(), row.customer_id.as_str()),
            ("PADS, \"ALL\"", "2011-01-02", "")
        );
        assert_eq!(row.amount().to_string(), "-0.003");
    }

    #[test]
    fn what_is_no_row_is_refused() {
        assert!(matches!(read_text("1,A,B,x,2011-01-02 03:04:05,1.0,,EIRE\n"), Err(CsvError::Row { .. })));
        assert!(matches!(read_text("1,A,B,1,2011-01-02,1.0,,EIRE\n"), Err(CsvError::Date { row: 1, .. })));
        assert!(matches!(read(Path::new("no/such/file.csv"), 1), Err(CsvError::Read { .. })));
    }
}
