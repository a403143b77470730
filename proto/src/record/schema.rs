//! The published JSON Schema of documents.
use serde_json::Value;

use super::Kind;

/// The JSON Schema (2020-12) of documents of `kind`; `None` for kinds that tills do not send.
pub fn json_schema(_kind: Kind) -> Option<Value> {
    None
}
