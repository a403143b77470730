//! Short texts that occur over and over (units, tender types, tax categories, codes) and exact decimals, in the form that the tables hold.
//!
//! Invariant: a word is its text and nothing else; whether it is shared with the program's own constants never shows.

use std::borrow::{Borrow, Cow};

use counterfoil_proto::record::flag;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that costs no heap where the program itself knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word(Cow<'static, str>);

/// Units, tender types and tax categories of the retail model. Only a saving: any other text works alike.
const KNOWN: &[&str] = &[
    "EA",
    "KGM",
    "GRM",
    "LTR",
    "MTR",
    "LBR",
    "H87",
    "C62",
    "cash",
    "card",
    "gift_card",
    "voucher",
    "store_credit",
    "account",
    "mobile",
    "foreign_cash",
    "change",
    "other",
    "S",
    "Z",
    "E",
    "AE",
    "K",
    "G",
    "O",
    "L",
    "M",
    "B",
    "EUR",
    "USD",
    "GBP",
    "CHF",
    "JPY",
];

impl Word {
    pub(super) fn of(text: &str) -> Self {
        match KNOWN
            .iter()
            .copied()
            .find(|known| *known == text)
            .or_else(|| flag::finding(text).map(|finding| finding.code))
        {
            Some(known) => Self(Cow::Borrowed(known)),
            None => Self(Cow::Owned(text.to_owned())),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Word {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&str>::deserialize(deserializer).map(Self::of)
    }
}

/// `text`, cut at a character so that it has at most `bytes_max` bytes.
pub(super) fn cut(text: &str, bytes_max: usize) -> Box<str> {
    text[..text.floor_char_boundary(bytes_max)].into()
}

/// A decimal as people read it: no zeros behind the last digit, no negative zero.
pub(super) fn decimal_text(value: Decimal) -> String {
    if value.is_zero() { "0".to_owned() } else { value.normalize().to_string() }
}

/// An exact decimal as mantissa and scale.
pub(super) mod decimal {
    use super::{Decimal, Deserialize, Deserializer, Serialize, Serializer};
    use serde::de::Error as _;

    pub(in crate::state) fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        (value.mantissa(), value.scale()).serialize(serializer)
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        let (mantissa, scale) = <(i128, u32)>::deserialize(deserializer)?;
        Decimal::try_from_i128_with_scale(mantissa, scale).map_err(D::Error::custom)
    }
}

/// An exact decimal that may be absent.
pub(super) mod decimal_option {
    use super::{Decimal, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Form(#[serde(with = "super::decimal")] Decimal);

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(in crate::state) fn serialize<S: Serializer>(
        value: &Option<Decimal>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Form).serialize(serializer)
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Decimal>, D::Error> {
        Ok(Option::<Form>::deserialize(deserializer)?.map(|form| form.0))
    }
}
