//! Card numbers: finding them in what a till sends, and masking them before anything is digested or stored.
//!
//! Invariant: what [`CardRule::masked`] returns holds no card number any more. A number counts as one when it has 13 to 19 digits
//! (blanks and dashes between them allowed), the prefix and length of a card brand, and a right Luhn digit.
//!
//! It leans the careful way where masking costs little (free text) and asks for a card's usual grouping where a find
//! refuses the document (identifiers): till, day and number strung together with dashes must not be taken for a card one time in ten.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::gtin::is_gtin;
use super::json::Node;

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;

/// Characters between two groups of digits of one number, at most.
const SEPARATORS_MAX: usize = 3;

/// Hexadecimal digits of a token (a UUID, a trace id, a hash) from which on its decimal runs are not looked at.
const HEX_TOKEN_MIN: usize = 32;

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It names something; a find refuses the document.
    Identifier,
    /// Anything else; a find is masked.
    FreeText,
}

/// What is taken for a card number.
#[derive(Clone, Debug)]
pub(crate) struct CardRule {
    /// Whether numbers of 13 digits are, too.
    pub(crate) mask_13_digits: bool,
    /// Article numbers of the document, which are not; without leading zeros.
    pub(crate) gtins: Vec<String>,
}

/// Whether it is worth a closer look; nearly every text is done with this.
pub(crate) fn may_hold_card(text: &str) -> bool {
    text.len() >= DIGITS_MIN && text.bytes().filter(u8::is_ascii_digit).count() >= DIGITS_MIN
}

/// The article numbers of a document's lines, without leading zeros.
pub(crate) fn gtins_of(root: &Node<'_>) -> Vec<String> {
    let Some(Node::List(lines)) = root.get("line_items") else { return Vec::new() };
    let gtins = lines.iter().filter_map(|line| line.get("gtin")?.as_text());
    let mut gtins: Vec<String> =
        gtins.filter(|gtin| is_gtin(gtin)).map(|gtin| gtin.trim_start_matches('0').into()).collect();
    gtins.sort_unstable();
    gtins
}

/// `text` with its card numbers masked, for copies of foreign text that is no document of ours; `None` where it holds none.
pub fn mask_cards(text: &str, mask_13_digits: bool) -> Option<String> {
    CardRule { mask_13_digits, gtins: Vec::new() }.masked(text)
}

impl CardRule {
    /// Whether `text` holds a card number.
    pub(crate) fn finds(&self, text: &str, place: Place) -> bool {
        may_hold_card(text) && !self.find(text, place).is_empty()
    }

    /// `text` with all but the last four digits of each card number masked; `None` where it holds none.
    pub(crate) fn masked(&self, text: &str) -> Option<String> {
        let mut masked: Option<String> = None;
        // Masking one number may leave another that overlapped it; each round takes digits away, so this ends.
        loop {
            let current = masked.as_deref().unwrap_or(text);
            let found = if may_hold_card(current) { self.find(current, Place::FreeText) } else { Vec::new() };
            if found.is_empty() {
                return masked;
            }
            masked = Some(found.into_iter().fold(String::from(current), |text, range| mask(&text, &range)));
        }
    }

    fn find(&self, text: &str, place: Place) -> Vec<Range<usize>> {
        let groups = digit_groups(text);
        let mut found = Vec::new();
        let mut first = 0;
        while first < groups.len() {
            let window = self.longest_from(text, groups.get(first..).unwrap_or_default(), place);
            first = match window {
                Some((count, range)) => {
                    found.push(range);
                    first.saturating_add(count)
                }
                None => first.saturating_add(1),
            };
        }
        found
    }

    /// The longest card number that begins with the first of `groups`: of how many groups, and where.
    fn longest_from(&self, text: &str, groups: &[Group], place: Place) -> Option<(usize, Range<usize>)> {
        let start = groups.first()?.range.start;
        let mut digits: Vec<u8> = Vec::with_capacity(DIGITS_MAX);
        let mut longest = None;
        for (index, group) in groups.iter().enumerate() {
            if index > 0 && !group.joined {
                break;
            }
            digits.extend_from_slice(text.as_bytes().get(group.range.clone())?);
            if digits.len() > DIGITS_MAX {
                break;
            }
            let count = index.saturating_add(1);
            let range = start..group.range.end;
            let grouped = place == Place::FreeText || has_card_grouping(text, groups.get(..count)?);
            if grouped && self.is_card(&digits) && !in_hex_token(text, &range) {
                longest = Some((count, range));
            }
        }
        longest
    }

    fn is_card(&self, digits: &[u8]) -> bool {
        let length_min = if self.mask_13_digits { DIGITS_MIN } else { DIGITS_MIN.saturating_add(1) };
        if !(length_min..=DIGITS_MAX).contains(&digits.len()) || !has_brand_prefix(digits) || !passes_luhn(digits) {
            return false;
        }
        let significant = digits.iter().position(|&digit| digit != b'0').and_then(|start| digits.get(start..));
        let significant = core::str::from_utf8(significant.unwrap_or_default()).unwrap_or_default();
        self.gtins.binary_search_by(|gtin| gtin.as_str().cmp(significant)).is_err()
    }
}

/// A run of digits.
struct Group {
    range: Range<usize>,
    /// Whether only separators, and few of them, stand between the run before and this one.
    joined: bool,
}

fn is_separator(character: char) -> bool {
    matches!(character, ' ' | '-' | '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{2010}'..='\u{2015}' | '\t')
}

fn digit_groups(text: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut separators = SEPARATORS_MAX.saturating_add(1);
    for (start, character) in text.char_indices() {
        if character.is_ascii_digit() {
            let end = start.saturating_add(1);
            match groups.last_mut() {
                Some(group) if group.range.end == start => group.range.end = end,
                _ => groups.push(Group { range: start..end, joined: separators <= SEPARATORS_MAX }),
            }
            separators = 0;
        } else if is_separator(character) {
            separators = separators.saturating_add(1);
        } else {
            separators = SEPARATORS_MAX.saturating_add(1);
        }
    }
    groups
}

/// One run, or runs as they are printed on cards (4-4-4-4, 4-6-5 …) with one and the same separator.
fn has_card_grouping(text: &str, groups: &[Group]) -> bool {
    let mut separators = groups.array_windows::<2>().map(|[one, other]| text.get(one.range.end..other.range.start));
    let first = separators.next();
    let is_long = first.flatten().is_some_and(|text| text.chars().count() > 1);
    if is_long || !separators.all(|separator| Some(separator) == first) {
        return false;
    }
    let mut lengths = groups.iter().map(|group| group.range.len());
    match (lengths.next(), groups.len()) {
        (_, 1) => true,
        (Some(4), 3) => lengths.next() == Some(6) && matches!(lengths.next(), Some(4 | 5)),
        (Some(4), 4) => lengths.all(|length| length == 4) || groups.iter().skip(1).all(|group| group.range.len() == 3),
        (Some(4), 5) => lengths.by_ref().take(3).all(|length| length == 4) && matches!(lengths.next(), Some(1..=3)),
        _ => false,
    }
}

fn in_hex_token(text: &str, range: &Range<usize>) -> bool {
    let is_token = |character: &char| character.is_ascii_hexdigit() || *character == '-';
    let before = text.get(..range.start).unwrap_or_default().chars().rev().take_while(is_token);
    let after = text.get(range.end..).unwrap_or_default().chars().take_while(is_token);
    let around: Vec<char> = before.chain(after).filter(|&character| character != '-').collect();
    around.iter().any(char::is_ascii_alphabetic) && around.len().saturating_add(range.len()) >= HEX_TOKEN_MIN
}

/// Prefixes and lengths of the brands. Of Maestro's wide range (50, 56 to 69) only what it really issues: 60, 61, 63, 66, 68 and 69
/// are full of loyalty cards. Lengths below 15 are left out there, lest one GTIN-14 in ten of cases and pallets be taken for a card.
fn has_brand_prefix(digits: &[u8]) -> bool {
    let prefix = |count: usize| {
        let digits = digits.iter().take(count);
        digits
            .fold(0_u32, |value, digit| value.saturating_mul(10).saturating_add(u32::from(digit.saturating_sub(b'0'))))
    };
    let length = digits.len();
    match (prefix(2), prefix(4)) {
        (40..=49, _) => matches!(length, 13 | 16 | 19),
        (51..=55, _) | (_, 2221..=2720) => length == 16,
        (34 | 37, _) => length == 15,
        (36 | 38 | 39, _) | (_, 3000..=3059 | 3095) => length >= 14,
        (_, 3528..=3589 | 6011 | 6440..=6499 | 2200..=2204) | (62 | 65 | 81, _) => length >= 16,
        (50 | 56..=58 | 67, _) | (_, 6304 | 6390) => length == 13 || length >= 15,
        _ => false,
    }
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum = digits.iter().rev().enumerate().fold(0_u32, |sum, (index, digit)| {
        let digit = u32::from(digit.saturating_sub(b'0'));
        let doubled = digit.saturating_mul(2);
        let counted = match (index.is_multiple_of(2), doubled > 9) {
            (true, _) => digit,
            (false, true) => doubled.saturating_sub(9),
            (false, false) => doubled,
        };
        sum.saturating_add(counted)
    });
    sum.is_multiple_of(10)
}

fn mask(text: &str, range: &Range<usize>) -> String {
    const SHOWN: usize = 4;
    let inside = text.get(range.clone()).unwrap_or_default();
    let mut hidden = inside.bytes().filter(u8::is_ascii_digit).count().saturating_sub(SHOWN);
    let mut masked = String::with_capacity(text.len());
    masked.push_str(text.get(..range.start).unwrap_or_default());
    for character in inside.chars() {
        let hide = character.is_ascii_digit() && hidden > 0;
        hidden = hidden.saturating_sub(usize::from(hide));
        masked.push(if hide { '*' } else { character });
    }
    masked.push_str(text.get(range.end..).unwrap_or_default());
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::{format, vec};
    use proptest::prelude::*;

    fn rule() -> CardRule {
        CardRule { mask_13_digits: false, gtins: Vec::new() }
    }

    /// The brands' published test numbers.
    const CARDS: &[&str] = &[
        "4111111111111111",
        "4242424242424242",
        "4000056655665556",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "6011111111111117",
        "6011000990139424",
        "3530111333300000",
        "30569309025904",
        "38520000023237",
        "36227206271667",
        "6304000000000000",
        "6759649826438453",
        "6205500000000000004",
        "2200770212727079",
    ];

    #[test]
    fn test_numbers_of_every_brand_are_found_and_masked_but_for_the_last_four() {
        for card in CARDS {
            let masked = rule().masked(&format!("paid with {card}, thanks")).unwrap_or_else(|| panic!("{card}"));
            let stars = "*".repeat(card.len() - 4);
            assert_eq!(masked, format!("paid with {stars}{}, thanks", &card[card.len() - 4..]));
            assert!(rule().finds(card, Place::Identifier), "{card}");
        }
    }

    #[test]
    fn separators_and_neighbours_hide_nothing() {
        for (text, masked) in [
            ("4111 1111 1111 1111", "**** **** **** 1111"),
            ("4111-1111-1111-1111", "****-****-****-1111"),
            ("3782 822463 10005", "**** ****** *0005"),
            ("4111  1111\u{a0}1111\u{2013}1111", "****  ****\u{a0}****\u{2013}1111"),
            ("2 x 4111111111111111", "2 x ************1111"),
            ("12 4111 1111 1111 1111 12/26", "12 **** **** **** 1111 12/26"),
            ("%B4111111111111111^DOE/JOHN^2512", "%B************1111^DOE/JOHN^2512"),
            (";4111111111111111=2512101", ";************1111=2512101"),
            ("é4111111111111111é", "é************1111é"),
        ] {
            assert_eq!(rule().masked(text).unwrap(), masked);
        }
    }

    #[test]
    fn what_is_no_card_stays() {
        for text in [
            "4111111111111112",                     // Luhn
            "9111111111111111",                     // prefix
            "411111111111111",                      // length of the brand
            "41111111111111111111",                 // too long
            "4222222222222",                        // 13 digits
            "4111.1111.1111.1111",                  // other separators
            "2026-11-23T10:15:02+01:00",            // a time
            "1790000000000000",                     // microseconds
            "4111111-c0de-4111-8111-411111111111a", // short of nothing
        ] {
            assert_eq!(rule().masked(text), None, "{text}");
        }
    }

    #[test]
    fn thirteen_digits_are_taken_only_when_asked() {
        assert!(!rule().finds("4222222222222", Place::FreeText));
        assert!(CardRule { mask_13_digits: true, ..rule() }.finds("4222222222222", Place::FreeText));
    }

    #[test]
    fn article_numbers_of_the_document_are_exempt() {
        let rule = CardRule { gtins: vec!["30569309025904".to_string()], ..rule() };
        assert!(!rule.finds("30569309025904", Place::FreeText));
        assert!(!rule.finds("0030569309025904", Place::FreeText));
        assert!(rule.finds("38520000023237", Place::FreeText));
    }

    #[test]
    fn uuids_and_hashes_are_not_cards() {
        // The third to fifth groups hold a Visa number with a right Luhn digit.
        assert!(!rule().finds("0b6fa1c2-9d4e-4111-1111-111111111111", Place::Identifier));
        let hash = format!("a{}4111111111111111b", "0c".repeat(12));
        assert!(!rule().finds(&hash, Place::FreeText));
        assert!(rule().finds("a4111111111111111b", Place::FreeText));
    }

    #[test]
    fn identifiers_of_till_day_and_number_are_not_cards() {
        // 16 digits, prefix 50, right Luhn digit, but not grouped as on a card.
        let identifier = (0..10).map(|last| format!("50-20261123-00118{last}"));
        assert_eq!(identifier.filter(|text| rule().finds(text, Place::Identifier)).count(), 0);
        assert!(rule().finds("4111-1111-1111-1111", Place::Identifier));
        assert!(rule().finds("3782-822463-10005", Place::Identifier));
        assert!(rule().finds("x-4111111111111111-7", Place::Identifier));
    }

    proptest! {
        #[test]
        fn a_masked_text_holds_no_card(
            before in "[a-z0-9 -]{0,12}",
            card in prop::sample::select(CARDS),
            separator in "[ -]{0,1}",
            after in "[a-z0-9 -]{0,12}",
        ) {
            let grouped = card.as_bytes().chunks(4).map(|group| core::str::from_utf8(group).unwrap()).collect::<Vec<_>>();
            let text = format!("{before}{}{after}", grouped.join(&separator));
            if let Some(masked) = rule().masked(&text) {
                prop_assert_eq!(masked.chars().count(), text.chars().count());
                prop_assert!(!rule().finds(&masked, Place::FreeText));
            }
        }

        #[test]
        fn a_card_between_words_is_always_found(before in "[a-z]{0,8}", card in prop::sample::select(CARDS), after in "[g-z,.]{0,8}") {
            let text = format!("{before}{card}{after}");
            prop_assert!(rule().finds(&text, Place::FreeText));
        }
    }
}
