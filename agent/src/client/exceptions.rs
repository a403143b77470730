//! `counterfoil exceptions`: what needs a person, and what a person did about it.

use std::fmt::Write as _;

use counterfoil_proto::record::flag::Change;
use serde_json::json;

use super::{Client, ClientError, age, laid_out, plain};
use crate::answer::ExceptionAnswer;

/// The exceptions of an agent, open ones or `all` that it knows.
pub fn list(client: &Client, all: bool) -> Result<Vec<ExceptionAnswer>, ClientError> {
    client.get(if all { "/v1/exceptions?all=true" } else { "/v1/exceptions" })
}

/// Notes that a person did something about one, and gives it as it stands then.
pub fn change(
    client: &Client,
    change: Change,
    id: &str,
    by: &str,
    reason: &str,
) -> Result<ExceptionAnswer, ClientError> {
    let word = match change {
        Change::Acknowledged => "acknowledge",
        Change::Resolved => "resolve",
        Change::Waived => "waive",
    };
    // Anything but the characters of an id cannot be one, and must not become another path.
    let id: String = id.chars().filter(|one| one.is_ascii_alphanumeric() || *one == '-').collect();
    client.post(&format!("/v1/exceptions/{id}/{word}"), &json!({ "by": by, "reason": reason }))
}

/// For a person's eyes: what it is, how bad, how old, about which document; the sentence below it.
pub fn table(found: &[ExceptionAnswer]) -> String {
    if found.is_empty() {
        return "No exceptions.\n".to_owned();
    }
    let head = ["ID", "SEVERITY", "STATE", "AGE", "CODE", "DOCUMENT", "OWNER"].map(ToOwned::to_owned).to_vec();
    let rows: Vec<Vec<String>> = [head].into_iter().chain(found.iter().map(row)).collect();
    let mut lines = laid_out(&rows).into_iter();
    let mut text = lines.next().unwrap_or_default() + "\n";
    for (line, found) in lines.zip(found) {
        // Writing to memory does not fail.
        let _written = writeln!(text, "{line}\n    {}", plain(&found.message));
        if let Some(reason) = &found.reason {
            let by = found.changed_by.as_deref().unwrap_or("somebody");
            let _written = writeln!(text, "    {} by {}: {}", found.state, plain(by), plain(reason));
        }
    }
    text
}

fn row(found: &ExceptionAnswer) -> Vec<String> {
    let document = found.identity.as_deref().map_or_else(|| "-".to_owned(), plain);
    vec![
        found.id.clone(),
        found.severity.clone(),
        found.state.clone(),
        age(found.age_s),
        plain(&found.code),
        document,
        found.owner.clone(),
    ]
}
