//! A JSON document as a tree that borrows from its text: what validation, masking and the content digest walk over.
//!
//! `serde_json::Value` would do, but it copies every string, hashes every key, and silently keeps the last of two equal
//! keys, so that a checked value could differ from the one that a reader of the stored text sees. This tree keeps all of them,
//! in order, and the walk refuses doubles.
//!
//! Invariant: the canonical form is that of RFC 8785. Bounded: nesting by the parser's 128 levels, values by [`VALUES_MAX`].
//! It deliberately does not know any field.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

/// Values (numbers, texts, lists …) of one document; more are refused as too large. A line of a sale has about 20, so 5,000
/// of them fit; it bounds what a body of 1 MiB can blow up to in memory.
pub(crate) const VALUES_MAX: usize = 160_000;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Vec<Member<'a>>),
}

/// A key and its value.
pub(crate) type Member<'a> = (Cow<'a, str>, Node<'a>);

/// Why bytes are no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// Not JSON; where, without any of its content.
    NotJson(String),
    /// More than [`VALUES_MAX`] values.
    TooManyValues,
}

/// Reads a document.
pub(crate) fn parse(document: &[u8]) -> Result<Node<'_>, ParseError> {
    let text = core::str::from_utf8(document)
        .map_err(|error| ParseError::NotJson(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let left = Cell::new(VALUES_MAX);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    NodeSeed(&left).deserialize(&mut deserializer).and_then(|node| deserializer.end().map(|()| node)).map_err(|error| {
        if left.get() == 0 {
            ParseError::TooManyValues
        } else {
            ParseError::NotJson(format!("not JSON at line {}, column {}", error.line(), error.column()))
        }
    })
}

#[derive(Clone, Copy)]
struct NodeSeed<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        match self.0.get().checked_sub(1) {
            Some(left) if left > 0 => self.0.set(left),
            _ => {
                self.0.set(0);
                return Err(de::Error::custom("too many values"));
            }
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node<'de>, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| de::Error::custom("a number out of range"))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = sequence.next_element_seed(self)? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(key) = map.next_key_seed(KeySeed)? {
            members.push((key, map.next_value_seed(self)?));
        }
        Ok(Node::Object(members))
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.into()))
    }
}

impl<'a> Node<'a> {
    /// The value of `key`, where this is an object that has it and it is not null: a null stands for an absent field.
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        let Node::Object(members) = self else { return None };
        members.iter().find(|(name, _)| name == key).map(|(_, node)| node).filter(|node| !matches!(node, Node::Null))
    }

    /// The text, where this is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) | Node::Object(_) => None,
        }
    }

    /// The number, where this is one without sign and fraction.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self {
            Node::Number(number) => number.as_u64(),
            Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_) | Node::Object(_) => None,
        }
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Number(number) => number.serialize(serializer),
            Node::Text(text) => serializer.serialize_str(text),
            Node::List(list) => serializer.collect_seq(list),
            Node::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(key, node)| map.serialize_entry(key, node))?;
                map.end()
            }
        }
    }
}

/// The first key that occurs twice among `keys`.
pub(crate) fn first_double<'k>(keys: impl Iterator<Item = &'k str> + Clone) -> Option<&'k str> {
    const QUADRATIC_MAX: usize = 12;
    let count = keys.clone().count();
    if count <= QUADRATIC_MAX {
        let mut rest = keys.clone();
        while let Some(key) = rest.next() {
            if rest.clone().any(|other| other == key) {
                return Some(key);
            }
        }
        return None;
    }
    let mut sorted: Vec<&str> = keys.collect();
    sorted.sort_unstable();
    sorted.array_windows::<2>().find(|[one, other]| one == other).map(|[one, _]| *one)
}

/// Appends the RFC 8785 form of `root`, without its top-level member `without`.
pub(crate) fn canonicalise(root: &Node<'_>, without: &str, output: &mut Vec<u8>) {
    match root {
        Node::Object(members) => {
            write_object(members.iter().filter(|(key, _)| key != without), output);
        }
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) => write_node(root, output),
    }
}

fn write_node(node: &Node<'_>, output: &mut Vec<u8>) {
    match node {
        Node::Null => output.extend_from_slice(b"null"),
        Node::Bool(true) => output.extend_from_slice(b"true"),
        Node::Bool(false) => output.extend_from_slice(b"false"),
        Node::Number(number) => write_number(number, output),
        Node::Text(text) => write_text(text, output),
        Node::List(list) => {
            output.push(b'[');
            for (index, node) in list.iter().enumerate() {
                if index > 0 {
                    output.push(b',');
                }
                write_node(node, output);
            }
            output.push(b']');
        }
        Node::Object(members) => write_object(members.iter(), output),
    }
}

fn write_object<'n>(members: impl Iterator<Item = &'n Member<'n>>, output: &mut Vec<u8>) {
    let mut members: Vec<(u64, &Member<'_>)> = members.map(|member| (first_bytes(&member.0), member)).collect();
    if members.iter().all(|(_, (key, _))| key.is_ascii()) {
        // The order of the bytes, which their first eight nearly always decide.
        members.sort_unstable_by(|(one, (one_key, _)), (other, (other_key, _))| {
            one.cmp(other).then_with(|| one_key.cmp(other_key))
        });
    } else {
        // RFC 8785 asks for the order of UTF-16 code units.
        members.sort_unstable_by(|(_, (one, _)), (_, (other, _))| one.encode_utf16().cmp(other.encode_utf16()));
    }
    output.push(b'{');
    for (index, (_, (key, node))) in members.into_iter().enumerate() {
        if index > 0 {
            output.push(b',');
        }
        write_text(key, output);
        output.push(b':');
        write_node(node, output);
    }
    output.push(b'}');
}

/// The first eight bytes as a number of the same order, zeros where there are fewer.
fn first_bytes(key: &str) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(key.bytes()).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(first)
}

#[expect(clippy::ptr_arg, reason = "whether the parser borrowed the text tells whether it can hold anything to escape")]
fn write_text(text: &Cow<'_, str>, output: &mut Vec<u8>) {
    output.push(b'"');
    let plain = match text {
        // The parser borrows only what has no escapes, and refuses raw control characters.
        Cow::Borrowed(_) => true,
        Cow::Owned(text) => text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\'),
    };
    if plain {
        output.extend_from_slice(text.as_bytes());
    } else {
        text.bytes().for_each(|byte| write_escaped(byte, output));
    }
    output.push(b'"');
}

fn write_escaped(byte: u8, output: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        0x00..=0x1f => return output.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        _ => return output.push(byte),
    };
    output.extend_from_slice(&[b'\\', short]);
}

fn write_number(number: &Number, output: &mut Vec<u8>) {
    /// Above it a double, which is what RFC 8785 writes, may differ from the integer.
    const EXACT_MAX: u64 = 1 << 53;
    match number.as_i64() {
        Some(integer) if integer.unsigned_abs() <= EXACT_MAX => {
            output.extend_from_slice(format!("{integer}").as_bytes());
        }
        // Rare, so the library's rule for doubles will do; it cannot fail on a finite number, and there are no others.
        _ => output.extend_from_slice(&serde_json_canonicalizer::to_vec(number).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        let mut output = Vec::new();
        canonicalise(&parse(text.as_bytes()).unwrap(), "traceparent", &mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn canonical_form_is_that_of_the_rfc_examples() {
        assert_eq!(
            canonical(
                r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#
            ),
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        // RFC 8785 section 3.2.3: sorted by UTF-16 code units.
        assert_eq!(
            canonical(r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}"
        );
        assert_eq!(canonical("[-0, -0.0, 9007199254740993, 1e21, -5]"), "[0,0,9007199254740992,1e+21,-5]");
    }

    #[test]
    fn only_the_top_level_traceparent_is_left_out() {
        assert_eq!(canonical(r#"{"traceparent":"a","b":{"traceparent":"c"}}"#), r#"{"b":{"traceparent":"c"}}"#);
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place_and_without_its_content() {
        for text in ["", "{", "{\"a\":1,}", "nul", "{} {}", "[1e400]", "\"\u{1}\"", "\u{feff}{}", "{\"a\":\"\\ud800\"}"]
        {
            let Err(ParseError::NotJson(detail)) = parse(text.as_bytes()) else { panic!("{text}") };
            assert!(detail.starts_with("not JSON at line 1"), "{detail}");
        }
        assert_eq!(parse(b"{\"a\":\"\xff\"}"), Err(ParseError::NotJson("not UTF-8 at byte 6".into())));
    }

    #[test]
    fn nesting_and_number_of_values_are_bounded() {
        let deep = alloc::vec![b'['; 1_000_000];
        assert!(matches!(parse(&deep), Err(ParseError::NotJson(_))));
        let mut many = b"[".to_vec();
        many.extend_from_slice("0,".repeat(VALUES_MAX).as_bytes());
        many.extend_from_slice(b"0]");
        assert_eq!(parse(&many), Err(ParseError::TooManyValues));
    }

    #[test]
    fn doubles_are_found_among_few_and_many() {
        assert_eq!(first_double(["a", "b", "a"].into_iter()), Some("a"));
        assert_eq!(first_double(["a", "b"].into_iter()), None);
        let many: Vec<String> = (0..100).map(|index| format!("{}", index % 99)).collect();
        assert_eq!(first_double(many.iter().map(String::as_str)), Some("0"));
        assert_eq!(first_double(many.iter().skip(1).map(String::as_str)), None);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "\\PC{0,8}|[\\x00-\\x7f]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::vec(("\\PC{0,6}|[a-z\\x00-\\x1f]{0,3}", inner), 0..8)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_form_equals_the_librarys(value in any_json()) {
            let text = serde_json::to_vec(&value).unwrap();
            let node = parse(&text).unwrap();
            let mut ours = Vec::new();
            write_node(&node, &mut ours);
            // The library is given what was parsed: a double that was written and read is the same double.
            let parsed: serde_json::Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(String::from_utf8(ours).unwrap(), serde_json_canonicalizer::to_string(&parsed).unwrap());
        }

        #[test]
        fn what_is_serialised_parses_to_the_same_tree(value in any_json()) {
            let text = serde_json::to_vec(&value).unwrap();
            let node = parse(&text).unwrap();
            let again = serde_json::to_vec(&node).unwrap();
            prop_assert_eq!(parse(&again).unwrap(), node);
        }

        #[test]
        fn any_bytes_are_parsed_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(parse(&bytes));
        }
    }
}
