//! Foreign bytes: whatever comes, it is mapped or refused, within bounds.

use std::cell::Cell;
use std::io::Read;

use proptest::prelude::*;

use super::dialects::ncr_file;
use super::*;
use crate::legacy::poslog::{TRANSACTION_BYTES_MAX, Transactions};

const JSON: &str = r#"{"order":{"id":"o1","state":"COMPLETED","closed_at":"2026-11-23T10:01:00Z","total_price":"1","currency":"USD","line_items":[{"uid":"l1",
"quantity":"2","price":"1.00","applied_taxes":[{"tax_uid":"t1","applied_money":{"amount":9223372036854775807,"currency":"USD"}},
{"tax_uid":"t1","applied_money":{"amount":9223372036854775807,"currency":"USD"}}],
"base_price_money":{"amount":-9223372036854775808,"currency":"USD"}}],"fulfillments":[{"uid":"f","state":"X"}],
"total_money":{"amount":9223372036854775807,"currency":"USD"},"tax_lines":[{"price":"999999999999.99","rate":1e300}]}}"#;

fn take(source: &[u8]) {
    for name in ["square", "shopify", "ncr-2.1", "poslog-6"] {
        for mapped in profile(name).map(source) {
            drop(mapped.and_then(|mapped| mapped.prepare(&context())));
        }
    }
}

/// Replaces, removes or repeats a stretch.
fn mutate(source: &str, at: usize, length: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = source.as_bytes().to_vec();
    let at = at % bytes.len();
    let end = (at + length).min(bytes.len());
    bytes.splice(at..end, with.iter().copied());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        take(&bytes);
    }

    #[test]
    fn mutated_sources_never_panic(
        at in any::<usize>(),
        length in 0_usize..40,
        with in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            "(-|null|\\[\\]|\\{\\}|<a>|</a>|&x;|&#0;|<!--|\"|99999999999999999999|1e9|-0|true)".prop_map(String::into_bytes),
        ],
    ) {
        take(&mutate(&ncr_file(2), at, length, &with));
        take(&mutate(JSON, at, length, &with));
    }
}

#[test]
fn an_order_of_the_greatest_amounts_does_not_panic() {
    take(JSON.as_bytes());
}

#[test]
fn xml_that_is_a_weapon_is_refused() {
    let bomb =
        "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><POSLog><Transaction>&b;</Transaction></POSLog>";
    let deep = format!("<POSLog><Transaction>{}", "<a>".repeat(100_000));
    let deep_outside = "<a>".repeat(100_000);
    for (source, problem) in [
        (bomb, "document-type"),
        ("<POSLog><Transaction>&b;</Transaction></POSLog>", "unknown-entity"),
        ("<!DOCTYPE x SYSTEM \"file:///etc/passwd\"><POSLog/>", "document-type"),
        (&deep, "too-deep"),
        (&deep_outside, "too-deep"),
        ("<POSLog><Transaction></POSLog>", "not-xml"),
        ("<POSLog><Transaction>", "not-xml"),
        ("<POSLog>", "not-xml"),
    ] {
        let refused = refusals(&profile("poslog-6"), source.as_bytes());
        assert!(
            matches!(&refused[..], [Refusal::Unreadable(fault)] if fault.problem == problem),
            "{problem}: {refused:?}"
        );
    }
}

/// Gives bytes for ever, and says how many were taken.
struct Endless<'c>(&'c Cell<usize>, &'static [u8]);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (head, rest) = self.1.split_at(self.1.len().min(buffer.len()));
        self.1 = rest;
        buffer[..head.len()].copy_from_slice(head);
        buffer[head.len()..].fill(b'x');
        self.0.set(self.0.get() + buffer.len());
        Ok(buffer.len())
    }
}

#[test]
fn memory_is_bounded_by_one_transaction() {
    for start in [&b"<POSLog><Transaction><Note>"[..], b"<POSLog><Transaction a=\"", b"<POSLog>"] {
        let taken = Cell::new(0);
        let mut transactions = Transactions::new(std::io::BufReader::new(Endless(&taken, start)));
        assert!(matches!(transactions.next(), Some(Err(Refusal::TooLarge(_)))));
        assert!(transactions.next().is_none());
        assert!(taken.get() < TRANSACTION_BYTES_MAX + 64 * 1024, "{}", taken.get());
    }
}
