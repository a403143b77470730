//! What names things: stores, agents, epochs, lanes, sequence numbers, digests and chains.
//!
//! Invariant: a value of these types is well formed; text is checked where it enters. Nothing here knows how a value is
//! stored or sent beyond its serde form (text where the format is for people, bytes where it is not).

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that is not the name it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct NameError {
    /// Which kind of name was expected.
    pub what: &'static str,
    /// The rule that the text broke.
    pub rule: &'static str,
}

fn is_name(text: &str, length_max: usize) -> bool {
    (1..=length_max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $length_max:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $type(String);

        impl $type {
            /// Checks `text` and takes it as a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_name(text, $length_max) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { what: $what, rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// A site, a GLN where the retailer has one; from configuration only.
    StoreId, "store_id", 32, "1 to 32 letters, digits, '_' or '-'"
);
name!(
    /// The daemon on one box, unique in its store.
    AgentId, "agent_id", 31, "1 to 31 letters, digits, '_' or '-'"
);

/// One agent of one store, as the hub knows it; `{store_id}.{agent_id}` is its MQTT client id and the common name of
/// its certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The store.
    pub store_id: StoreId,
    /// The agent in that store.
    pub agent_id: AgentId,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.store_id, self.agent_id)
    }
}

fn write_hex(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N.checked_mul(2)? {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = core::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! opaque {
    ($(#[$doc:meta])* $type:ident, $length:literal, $what:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub [u8; $length]);

        impl Default for $type {
            fn default() -> Self {
                Self([0; $length])
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, formatter)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($type))
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                read_hex(text).map(Self).ok_or(NameError { what: $what, rule: $rule })
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> alloc::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let pattern = alloc::format!("^[0-9a-f]{{{}}}$", $length * 2);
                schemars::json_schema!({ "description": $what, "type": "string", "pattern": pattern })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serde::Serialize::serialize(&ByteArray(self.0), serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    ByteArray::deserialize(deserializer).map(|array| Self(array.0))
                }
            }
        }
    };
}

/// Bytes without a length before them: a tuple to serde, which only knows arrays of up to 32 that way.
struct ByteArray<const N: usize>([u8; N]);

impl<const N: usize> Serialize for ByteArray<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(N)?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for ByteArray<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<'de, const N: usize> de::Visitor<'de> for Visitor<N> {
            type Value = ByteArray<N>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{N} bytes")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut bytes = [0; N];
                for byte in &mut bytes {
                    *byte = sequence.next_element()?.ok_or_else(|| de::Error::custom("too few bytes"))?;
                }
                Ok(ByteArray(bytes))
            }
        }
        deserializer.deserialize_tuple(N, Visitor)
    }
}

opaque!(
    /// One incarnation of an agent: 128 random bits, minted when the first till record after a start is appended.
    Epoch, 16, "epoch", "32 hexadecimal digits"
);
opaque!(
    /// One uplink connection of an agent, or one start of a hub's ledger: 128 random bits.
    SessionId, 16, "session", "32 hexadecimal digits"
);
opaque!(
    /// The kernel's boot id, by which monotonic times are comparable.
    BootId, 16, "boot_id", "32 hexadecimal digits"
);
opaque!(
    /// A BLAKE3 hash. Whether of a document (content digest) or of stored bytes (record digest) the field's name says.
    Digest, 32, "digest", "64 hexadecimal digits"
);
opaque!(
    /// The rolling hash over a lane: genesis = BLAKE3(epoch, lane), next = BLAKE3(chain, seq, record digest).
    Chain, 32, "chain", "64 hexadecimal digits"
);

opaque!(
    /// The public half of a box's own Ed25519 key (RFC 8032).
    PublicKey, 32, "public_key", "64 hexadecimal digits"
);
opaque!(
    /// An Ed25519 signature (RFC 8032).
    Signature, 64, "signature", "128 hexadecimal digits"
);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of digests, in their order: what a batch holds, without its head.
    pub fn over(digests: &[Self]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for digest in digests {
            hasher.update(&digest.0);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl Chain {
    /// The chain before the first record of a lane.
    pub fn genesis(epoch: Epoch, lane: Lane) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&epoch.0);
        hasher.update(&[lane.code()]);
        Self(*hasher.finalize().as_bytes())
    }

    /// The chain after the record `seq`, whose stored bytes have `record_digest`.
    #[must_use]
    pub fn next(self, seq: Seq, record_digest: Digest) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&seq.0.to_le_bytes());
        hasher.update(&record_digest.0);
        Self(*hasher.finalize().as_bytes())
    }
}

/// A sequence of its own within an epoch. The order of the variants is the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Money documents, day closes, the agent's own statements that must not be lost. Never dropped.
    Trade,
    /// Stock movements. Never dropped.
    Stock,
    /// Health of the box. Shed, before a sequence number is given, when room is short.
    Ops,
}

impl Lane {
    /// All lanes, in sending order.
    pub const ALL: [Self; 3] = [Self::Trade, Self::Stock, Self::Ops];

    /// The lane's number on disk and on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Trade => 0,
            Self::Stock => 1,
            Self::Ops => 2,
        }
    }

    /// The lane with that number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Trade),
            1 => Some(Self::Stock),
            2 => Some(Self::Ops),
            _ => None,
        }
    }

    /// The lane's name in topics, answers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trade => "trade",
            Self::Stock => "stock",
            Self::Ops => "ops",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str() == text)
            .ok_or(NameError { what: "lane", rule: "trade, stock or ops" })
    }
}

/// The place of a record in its lane: from 1, without holes. Zero stands for "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(into = "u64", try_from = "u64")]
pub struct Seq(pub u64);

/// A number that no record can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The number of a record must be below {}", u64::MAX)]
pub struct SeqError;

impl TryFrom<u64> for Seq {
    type Error = SeqError;

    /// Takes a number from outside. The last one is refused: whoever counts up to it would never get past it.
    fn try_from(number: u64) -> Result<Self, SeqError> {
        if number < u64::MAX { Ok(Self(number)) } else { Err(SeqError) }
    }
}

impl From<Seq> for u64 {
    fn from(seq: Seq) -> Self {
        seq.0
    }
}

impl Seq {
    /// Before the first record.
    pub const NONE: Self = Self(0);
    /// The first record.
    pub const FIRST: Self = Self(1);

    /// The number after this one. A lane would need 500,000 years at a million records a second to reach the end,
    /// where this stays.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before this one; none before none.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// This number moved on by `count`.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many numbers lie above `other` up to this one; zero where there are none.
    pub const fn above(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// What names a lane of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LaneKey {
    /// The incarnation.
    pub epoch: Epoch,
    /// The lane in it.
    pub lane: Lane,
}

/// What names a record of an agent for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordKey {
    /// The incarnation.
    pub epoch: Epoch,
    /// The lane in it.
    pub lane: Lane,
    /// The place in the lane.
    pub seq: Seq,
}

impl RecordKey {
    /// The lane that the record stands in.
    pub const fn lane_key(self) -> LaneKey {
        LaneKey { epoch: self.epoch, lane: self.lane }
    }
}

/// A run of sequence numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SeqRange {
    /// The first number.
    pub first: Seq,
    /// The last number, not below the first.
    pub last: Seq,
}

impl SeqRange {
    /// How many numbers the range holds.
    pub const fn count(self) -> u64 {
        self.last.0.saturating_sub(self.first.0).saturating_add(1)
    }

    /// Whether `seq` lies in the range.
    pub const fn contains(self, seq: Seq) -> bool {
        self.first.0 <= seq.0 && seq.0 <= self.last.0
    }

    /// The first number of the range that lies in none of `others`.
    pub fn first_outside(self, others: &(impl Iterator<Item = Self> + Clone)) -> Option<Seq> {
        let mut seq = self.first;
        while seq <= self.last {
            let Some(cover) = others.clone().find(|other| other.contains(seq)) else { return Some(seq) };
            if cover.last >= self.last {
                return None;
            }
            seq = cover.last.next();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_are_bounded_and_plain() {
        assert!(StoreId::new("0042").is_ok());
        assert!(StoreId::new("").is_err());
        assert!(StoreId::new("a/b").is_err());
        assert!(StoreId::new("a+b").is_err());
        assert!(StoreId::new(&"a".repeat(33)).is_err());
        assert!(AgentId::new(&"a".repeat(32)).is_err());
    }

    #[test]
    fn the_first_number_outside_of_ranges() {
        let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
        let outside = |one: SeqRange, others: &[SeqRange]| one.first_outside(&others.iter().copied());
        assert_eq!(outside(range(3, 5), &[]), Some(Seq(3)));
        assert_eq!(outside(range(3, 5), &[range(4, 9)]), Some(Seq(3)));
        assert_eq!(outside(range(3, 5), &[range(4, 4), range(1, 3)]), Some(Seq(5)));
        assert_eq!(outside(range(3, 5), &[range(4, 5), range(1, 3)]), None);
        assert_eq!(outside(range(5, 3), &[]), None, "an empty range");
        assert_eq!(outside(range(3, u64::MAX), &[range(1, u64::MAX)]), None);
    }

    #[test]
    fn hex_reads_what_it_wrote_and_refuses_signs() {
        let epoch = Epoch(core::array::from_fn(|index| u8::try_from(index * 17).unwrap()));
        assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        assert!("+1+2+3+4+5+6+7+8+9+a+b+c+d+e+f+0".parse::<Epoch>().is_err());
        assert!("00".parse::<Epoch>().is_err());
    }

    #[test]
    fn chain_depends_on_epoch_lane_seq_and_digest() {
        let epoch = Epoch([7; 16]);
        let genesis = Chain::genesis(epoch, Lane::Trade);
        assert_ne!(genesis, Chain::genesis(epoch, Lane::Stock));
        assert_ne!(genesis, Chain::genesis(Epoch([8; 16]), Lane::Trade));
        let digest = Digest::of(b"sale");
        assert_ne!(genesis.next(Seq(1), digest), genesis.next(Seq(2), digest));
        assert_ne!(genesis.next(Seq(1), digest), genesis.next(Seq(1), Digest::of(b"other")));
    }
}
