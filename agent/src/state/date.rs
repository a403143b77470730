//! A business day as a number that orders like the calendar.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Year, month and day in decimal digits: 20261123. Only the form is checked; whether the day exists was, when the document came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Date(pub(super) u32);

impl Date {
    /// Reads `YYYY-MM-DD`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *<&[u8; 10]>::try_from(text.as_bytes()).ok()? else {
            return None;
        };
        let mut number = 0u32;
        for digit in [y1, y2, y3, y4, m1, m2, d1, d2] {
            number = number * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        Some(Self(number))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
    }
}
