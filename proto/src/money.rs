//! Amounts, prices and quantities, exact: minor units of an ISO 4217 currency, or decimals; never floats.
//!
//! Invariant: what is read is strict (an optional `-`, digits, an optional fraction; no `+`, no exponent, no blank), and what
//! is written reads back as the same value. Nothing here rounds.
//!
//! It deliberately does not know what an amount is for; signs and sums are judged in [`crate::record`].

use alloc::format;
use alloc::string::String;
use core::fmt;

use rust_decimal::Decimal;

/// Digits before the point, leading zeros aside; more are refused. Twelve hold what a chain turns over in a day in any
/// currency, keep every sum of a document within `i64`, and leave no room for a card number (13 digits and more).
pub const INTEGER_DIGITS_MAX: usize = 12;

/// Digits after the point of a price, a quantity or a rate, trailing zeros aside; more are refused. Three are common for
/// weights, four for fuel; with the digits before the point they stay well within a [`Decimal`].
pub const FRACTION_DIGITS_MAX: usize = 9;

/// Characters of a number, superfluous zeros included; longer ones are refused without being looked at.
pub const DECIMAL_CHARS_MAX: usize = 40;

/// Text that is not the amount, price or quantity it should be. The text itself is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not an optional `-`, digits, and an optional fraction.
    #[error("must be a decimal such as \"-12.50\": an optional '-', digits, an optional fraction")]
    Syntax,
    /// Too many digits before the point, or too many characters.
    #[error("must have at most {INTEGER_DIGITS_MAX} digits before the point")]
    OutOfRange,
    /// More places than there may be, and not only zeros.
    #[error("must have at most {places_max} decimal places")]
    TooManyPlaces {
        /// How many there may be.
        places_max: usize,
    },
    /// Not a currency of ISO 4217 with minor units.
    #[error("must be an ISO 4217 currency code such as \"EUR\"")]
    UnknownCurrency,
}

/// A currency that amounts can be counted in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    iso: iso_currency::Currency,
    places: usize,
}

impl Currency {
    /// The currency with that ISO 4217 code. Codes without minor units (gold, testing) are none.
    pub fn from_code(code: &str) -> Result<Self, MoneyError> {
        let iso = iso_currency::Currency::from_code(code).ok_or(MoneyError::UnknownCurrency)?;
        let places = iso.exponent().ok_or(MoneyError::UnknownCurrency)?;
        Ok(Self { iso, places: usize::from(places) })
    }

    /// Its ISO 4217 code.
    pub fn code(self) -> &'static str {
        self.iso.code()
    }

    /// Decimal places of its minor unit: 2 for EUR, 0 for JPY, 3 for BHD.
    pub const fn places(self) -> usize {
        self.places
    }
}

/// The smallest amount that is paid in cash, in minor units, where that is well known and not one whole unit.
const CASH_STEPS: &[(&str, u64)] = &[
    ("AUD", 5),
    ("CAD", 5),
    ("CHF", 5),
    ("DKK", 50),
    ("EUR", 5),
    ("HKD", 10),
    ("HUF", 500),
    ("ILS", 10),
    ("MYR", 5),
    ("NZD", 10),
    ("SGD", 5),
    ("ZAR", 10),
];

impl Currency {
    /// What cash payments are rounded to, in minor units: 5 for CHF and EUR; one whole unit where nothing else is known (SEK).
    pub fn cash_step(self) -> u64 {
        let whole = (0..self.places).fold(1_u64, |whole, _| whole.saturating_mul(10));
        CASH_STEPS.iter().find(|(code, _)| *code == self.code()).map_or(whole, |(_, step)| *step)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

/// A decimal as it was read: its digits without the point, and how many of them stood behind it.
struct Digits {
    mantissa: i128,
    places: usize,
}

fn trim_end(mut digits: &[u8], length_min: usize) -> &[u8] {
    while digits.len() > length_min
        && let [rest @ .., b'0'] = digits
    {
        digits = rest;
    }
    digits
}

fn read(text: &str, places_max: usize) -> Result<Digits, MoneyError> {
    let bytes = text.as_bytes();
    if bytes.len() > DECIMAL_CHARS_MAX {
        return Err(MoneyError::OutOfRange);
    }
    let (negative, bytes) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut parts = bytes.splitn(2, |&byte| byte == b'.');
    let integer = parts.next().unwrap_or_default();
    let fraction = parts.next();
    let is_digits = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_digits(integer) || !fraction.is_none_or(is_digits) {
        return Err(MoneyError::Syntax);
    }
    let integer =
        integer.iter().position(|&digit| digit != b'0').and_then(|start| integer.get(start..)).unwrap_or_default();
    if integer.len() > INTEGER_DIGITS_MAX {
        return Err(MoneyError::OutOfRange);
    }
    let fraction = trim_end(fraction.unwrap_or_default(), places_max);
    if fraction.len() > places_max {
        return Err(MoneyError::TooManyPlaces { places_max });
    }
    // At most 12 digits and `places_max` of them; every caller's `places_max` is at most FRACTION_DIGITS_MAX.
    let mantissa = integer
        .iter()
        .chain(fraction)
        .fold(0_i128, |value, &digit| value.saturating_mul(10).saturating_add(i128::from(digit.saturating_sub(b'0'))));
    Ok(Digits { mantissa: if negative { mantissa.saturating_neg() } else { mantissa }, places: fraction.len() })
}

/// The amount in minor units. Places beyond the currency's are taken only where they are zeros (`1.290` EUR).
pub fn minor_units(text: &str, currency: Currency) -> Result<i64, MoneyError> {
    let Digits { mut mantissa, places } = read(text, currency.places)?;
    for _ in places..currency.places {
        mantissa = mantissa.saturating_mul(10);
    }
    i64::try_from(mantissa).map_err(|_| MoneyError::OutOfRange)
}

/// The amount as answers and documents show it, with all places of its currency.
pub fn amount_text(minor: i64, currency: Currency) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", minor.unsigned_abs(), width = currency.places.saturating_add(1));
    match digits.split_at_checked(digits.len().saturating_sub(currency.places)) {
        Some((integer, fraction)) if !fraction.is_empty() => format!("{sign}{integer}.{fraction}"),
        _ => format!("{sign}{digits}"),
    }
}

/// A price, a quantity or a rate, with its places as written.
pub fn decimal(text: &str) -> Result<Decimal, MoneyError> {
    let Digits { mantissa, places } = read(text, FRACTION_DIGITS_MAX)?;
    let places = u32::try_from(places).map_err(|_| MoneyError::OutOfRange)?;
    Decimal::try_from_i128_with_scale(mantissa, places).map_err(|_| MoneyError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn currency(code: &str) -> Currency {
        Currency::from_code(code).unwrap()
    }

    #[test]
    fn exponents_are_those_of_iso_4217() {
        for (code, places) in [("EUR", 2), ("JPY", 0), ("BHD", 3), ("HUF", 2), ("ISK", 0), ("CLF", 4), ("KWD", 3)] {
            assert_eq!(currency(code).places(), places, "{code}");
        }
        for code in ["", "eur", "EU", "EURO", "ZZZ", "XAU", "XXX"] {
            assert_eq!(Currency::from_code(code), Err(MoneyError::UnknownCurrency), "{code}");
        }
    }

    #[test]
    fn cash_has_its_smallest_coin() {
        for (code, step) in [("EUR", 5), ("CHF", 5), ("SEK", 100), ("NZD", 10), ("HUF", 500), ("DKK", 50), ("JPY", 1)] {
            assert_eq!(currency(code).cash_step(), step, "{code}");
        }
        for (code, _) in CASH_STEPS {
            assert_eq!(currency(code).code(), *code);
        }
    }

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        let euro = currency("EUR");
        for (text, minor) in [
            ("0", 0),
            ("-0", 0),
            ("5", 500),
            ("-4.02", -402),
            ("8.9", 890),
            ("1.290", 129),
            ("007.50", 750),
            ("999999999999.99", 99_999_999_999_999),
        ] {
            assert_eq!(minor_units(text, euro), Ok(minor), "{text}");
        }
        for text in ["", "-", ".5", "5.", "+5", "1e2", " 5", "5 ", "1,5", "1.2.3", "0x1", "--1", "١", "NaN"] {
            assert_eq!(minor_units(text, euro), Err(MoneyError::Syntax), "{text}");
        }
        assert_eq!(minor_units("1.291", euro), Err(MoneyError::TooManyPlaces { places_max: 2 }));
        assert_eq!(minor_units("1000000000000", euro), Err(MoneyError::OutOfRange));
        assert_eq!(minor_units(&"0".repeat(DECIMAL_CHARS_MAX + 1), euro), Err(MoneyError::OutOfRange));
        assert_eq!(minor_units("5.0", currency("JPY")), Ok(5));
        assert_eq!(minor_units("0.125", currency("BHD")), Ok(125));
    }

    #[test]
    fn a_card_number_is_no_decimal() {
        assert!(decimal("4111111111111111").is_err());
        assert!(decimal("1.4111111111111111").is_err());
        assert!(decimal("0000004111111111111111").is_err());
    }

    #[test]
    fn decimals_keep_their_places() {
        assert_eq!(decimal("2.50").unwrap().to_string(), "2.50");
        assert_eq!(decimal("-0.001").unwrap().to_string(), "-0.001");
        assert_eq!(decimal("1.0000000000").unwrap().to_string(), "1.000000000");
        assert_eq!(decimal("1.0000000001"), Err(MoneyError::TooManyPlaces { places_max: FRACTION_DIGITS_MAX }));
    }

    #[test]
    fn amounts_are_written_with_all_places() {
        for (minor, code, text) in [
            (0, "EUR", "0.00"),
            (5, "EUR", "0.05"),
            (-5, "EUR", "-0.05"),
            (-402, "EUR", "-4.02"),
            (7, "JPY", "7"),
            (-1250, "BHD", "-1.250"),
            (i64::MIN, "EUR", "-92233720368547758.08"),
        ] {
            assert_eq!(amount_text(minor, currency(code)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            minor in -999_999_999_999_i64..=999_999_999_999,
            code in prop::sample::select(alloc::vec!["EUR", "JPY", "BHD"]),
        ) {
            let currency = currency(code);
            prop_assert_eq!(minor_units(&amount_text(minor, currency), currency), Ok(minor));
        }

        #[test]
        fn decimals_agree_with_the_library(text in "-?[0-9]{1,12}(\\.[0-9]{1,9})?") {
            prop_assert_eq!(decimal(&text).unwrap(), text.parse::<Decimal>().unwrap());
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,48}|[-+.0-9e]{0,48}") {
            if let Ok(value) = decimal(&text) {
                prop_assert_eq!(value, text.parse::<Decimal>().unwrap());
            }
            for code in ["EUR", "JPY", "CLF"] {
                if let Ok(minor) = minor_units(&text, currency(code)) {
                    prop_assert_eq!(minor_units(&amount_text(minor, currency(code)), currency(code)), Ok(minor));
                }
            }
        }
    }
}
