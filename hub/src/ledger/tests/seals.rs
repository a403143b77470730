//! Signed control totals: what a box signed is taken as right, and whatever was done to it afterwards is named.

use counterfoil_proto::id::{PublicKey, Signature};
use counterfoil_proto::record::control_totals::signed_bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

struct Box1 {
    key: Ed25519KeyPair,
    previous: Value,
    number: u64,
}

impl Box1 {
    fn new(seed: u8) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self { key, previous: Value::Null, number: 0 }
    }

    /// The next control totals, signed.
    fn totals(&mut self, gross: &str) -> Vec<u8> {
        self.number += 1;
        let mut document = json!({
            "number": self.number, "closes": { "epoch": epoch(1), "lane": Lane::Trade, "seq": Seq(1) },
            "business_day_date": "2026-11-23", "workstation_id": "3", "declared": [],
            "computed": [{ "currency_code": "EUR", "transactions": 2, "gross": gross, "tills": [] }],
            "perpetual": [], "epochs": [], "previous": self.previous, "algorithm": "Ed25519",
            "public_key": PublicKey(self.key.public_key().as_ref().try_into().unwrap()),
        });
        let signed = signed_bytes(document.to_string().as_bytes()).unwrap();
        document["signature"] = json!(Signature(self.key.sign(&signed).as_ref().try_into().unwrap()));
        let bytes = document.to_string().into_bytes();
        self.previous = json!({ "number": self.number, "digest": Digest::of(&bytes) });
        bytes
    }
}

fn record(document: Vec<u8>) -> Vec<u8> {
    let envelope = Envelope { content_digest: Digest::of(&document), ..Envelope::default() };
    Record { kind: Kind::CONTROL_TOTALS, envelope, document }.encode().unwrap()
}

#[tokio::test]
async fn control_totals_are_held_to_their_signature_their_line_and_their_key() {
    for place in places() {
        let ledger = place.open().await;
        let (one, other) = (source("0001", "a"), source("0001", "b"));
        let (mut right, mut stranger) = (Box1::new(1), Box1::new(2));
        let text = |document: Vec<u8>| String::from_utf8(document).unwrap();
        let mut documents = vec![right.totals("10.00"), right.totals("11.00")];
        documents.push(text(right.totals("12.00")).replace("12.00", "13.00").into_bytes());
        // One is left out: what follows does not name the changed ones before it, and the line goes on from there.
        documents.push(right.totals("14.00"));
        documents.push(right.totals("15.00"));
        // Somebody else's key, in the right place of the line.
        (stranger.previous, stranger.number) = (right.previous.clone(), right.number);
        documents.push(stranger.totals("16.00"));
        documents.push(b"{\"number\":\"x\"}".to_vec());
        let raised = [None, None, Some("signature"), Some("do not follow"), None, Some("another key"), Some("read")];
        for (seq, document) in (1..).zip(&documents) {
            ledger.take(&[trade(&one, seq, vec![record(document.clone())])]).await.unwrap();
            if seq != 2 {
                post_all(&ledger).await;
            }
        }
        // Another box of the store has a line of its own.
        ledger
            .take(&[arrival(&other, epoch(2), Lane::Trade, 1, vec![record(Box1::new(3).totals("1.00"))])])
            .await
            .unwrap();
        post_all(&ledger).await;
        let filter = ExceptionFilter {
            code: Some(flag::CONTROL_TOTALS_BROKEN.to_owned()),
            limit: 100,
            ..ExceptionFilter::default()
        };
        let mut found: Vec<(u64, String)> = ledger
            .exceptions(&filter)
            .await
            .unwrap()
            .into_iter()
            .map(|found| (found.key.seq.0, found.detail))
            .collect();
        found.sort();
        let expected: Vec<(u64, &str)> = (1..).zip(raised).filter_map(|(seq, word)| Some((seq, word?))).collect();
        assert_eq!(
            found.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
            expected.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
            "{found:?}"
        );
        for ((_, detail), (_, word)) in found.iter().zip(expected) {
            assert!(detail.contains(word), "{word} in {detail}");
        }
        let day = ledger.day("0001", "2026-11-23").await.unwrap();
        let seals: Vec<(&str, u64, &str, bool)> = day
            .seals
            .iter()
            .map(|seal| (seal.agent_id.as_str(), seal.number, seal.computed[0].gross.as_str(), seal.wrong.is_empty()))
            .collect();
        assert_eq!(
            seals,
            [
                ("a", 1, "10.00", true),
                ("a", 2, "11.00", true),
                ("a", 3, "13.00", false),
                ("a", 4, "14.00", false),
                ("a", 5, "15.00", true),
                ("a", 6, "16.00", false),
                ("b", 1, "1.00", true),
            ]
        );
        assert!(day.totals.is_empty(), "what a box counted is in no total");
    }
}
