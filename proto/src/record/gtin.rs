//! Article numbers of GS1: their form and check digit.
//!
//! Invariant: a number that only looks like one (restricted circulation, variable measure) is not told apart here; validity does not prove
//! that a GTIN is global.

/// Whether `text` has the form of a GTIN: 8, 12, 13 or 14 digits.
pub(crate) fn is_gtin(text: &str) -> bool {
    matches!(text.len(), 8 | 12 | 13 | 14) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `text` is a GTIN in form whose last digit is not the one that the others give (GS1 General Specifications, 7.9.1: from the
/// right, weights 3 and 1 in turn, up to the next ten).
pub(crate) fn has_wrong_check_digit(text: &str) -> bool {
    let sum = text.bytes().rev().enumerate().fold(0_u32, |sum, (place, byte)| {
        let weight = if place % 2 == 1 { 3 } else { 1 };
        sum.saturating_add(u32::from(byte.saturating_sub(b'0')).saturating_mul(weight))
    });
    is_gtin(text) && sum % 10 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn the_last_digit_follows_from_the_others() {
        for right in ["4006381333931", "04006381333931", "036000291452", "96385074", "00000000000000"] {
            assert!(is_gtin(right) && !has_wrong_check_digit(right), "{right}");
            let (rest, last) = right.split_at(right.len() - 1);
            for other in "0123456789".chars().filter(|digit| !last.contains(*digit)) {
                assert!(has_wrong_check_digit(&format!("{rest}{other}")), "{right} {other}");
            }
        }
    }

    #[test]
    fn what_has_no_form_of_one_is_not_judged() {
        for text in ["", "85123A", "123456789", "4006381333930 ", "40063813339310000"] {
            assert!(!has_wrong_check_digit(text), "{text}");
        }
    }
}
