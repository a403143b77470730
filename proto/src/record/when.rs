//! When something happened: the times and days that tills write, resolved once, when the document is accepted.
//!
//! Invariant: what is resolved here goes into the envelope and is never computed again; the document keeps the raw text.
//! It deliberately knows no clock: a time far from now is a fact about the till, not a fault.

use alloc::string::{String, ToString};

use jiff::civil;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use crate::time::WallTime;

static PARSER: DateTimeParser = DateTimeParser::new();

/// A time of the till, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occurred {
    /// UTC.
    pub(crate) at: Timestamp,
    /// Whether the text names no single moment: it has no zone, and the clock was changed then.
    pub(crate) ambiguous: bool,
}

impl Occurred {
    /// As records carry it.
    pub(crate) fn wall_time(self) -> WallTime {
        WallTime(self.at.as_millisecond())
    }
}

/// Whether `text` is a day, `YYYY-MM-DD`.
pub(crate) fn is_date(text: &str) -> bool {
    has_date_shape(text.as_bytes()) && text.len() == 10 && text.parse::<civil::Date>().is_ok()
}

fn has_date_shape(bytes: &[u8]) -> bool {
    matches!(bytes, [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, ..]
        if [y0, y1, y2, y3, m0, m1, d0, d1].into_iter().all(u8::is_ascii_digit))
}

/// Resolves RFC 3339 text, with an offset or without (then in `zone`); `None` where it is no such time.
///
/// An hour that the clock went through twice takes the earlier offset, and one that it skipped the offset before the gap;
/// both are ambiguous.
pub(crate) fn resolve(text: &str, zone: &TimeZone) -> Option<Occurred> {
    const CHARS_MAX: usize = 40;
    let bytes = text.as_bytes();
    let separated = matches!(bytes.get(10..), Some([b'T' | b't' | b' ', _, _, b':', _, _, b':', _, _, ..]));
    if bytes.len() > CHARS_MAX || !has_date_shape(bytes) || !separated || bytes.contains(&b'[') {
        return None;
    }
    let pieces = PARSER.parse_pieces(text).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    if let Some(offset) = pieces.to_numeric_offset() {
        return Some(Occurred { at: offset.to_timestamp(local).ok()?, ambiguous: false });
    }
    let (offset, ambiguous) = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => (offset, false),
        AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. } => (before, true),
    };
    Some(Occurred { at: offset.to_timestamp(local).ok()?, ambiguous })
}

/// Resolves RFC 3339 text with an offset; `None` where it is no such time, or has none.
pub(crate) fn instant(text: &str) -> Option<Occurred> {
    let offset = PARSER.parse_pieces(text).ok()?.to_numeric_offset();
    offset.and_then(|_| resolve(text, &TimeZone::UTC))
}

/// The business day of a moment: the calendar day in `zone`, or the one before until `cutover`.
pub(crate) fn business_day(at: Timestamp, zone: &TimeZone, cutover: civil::Time) -> String {
    let local = zone.to_datetime(at);
    let day = if local.time() < cutover {
        local.date().checked_sub(1.day()).unwrap_or_else(|_| local.date())
    } else {
        local.date()
    };
    day.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paris() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn resolved(text: &str) -> (String, bool) {
        let occurred = resolve(text, &paris()).unwrap_or_else(|| panic!("{text}"));
        (occurred.at.to_string(), occurred.ambiguous)
    }

    #[test]
    fn an_offset_in_the_text_wins() {
        assert_eq!(resolved("2026-11-23T10:15:40+01:00"), ("2026-11-23T09:15:40Z".into(), false));
        assert_eq!(resolved("2026-11-23T10:15:40Z"), ("2026-11-23T10:15:40Z".into(), false));
        assert_eq!(resolved("2026-10-25T02:30:00+01:00"), ("2026-10-25T01:30:00Z".into(), false));
    }

    #[test]
    fn an_instant_needs_its_offset() {
        let at = |text: &str| instant(text).map(|occurred| occurred.at.to_string());
        assert_eq!(at("2026-11-23T10:15:40+01:00").as_deref(), Some("2026-11-23T09:15:40Z"));
        assert_eq!(at("2026-11-23T10:15:40Z").as_deref(), Some("2026-11-23T10:15:40Z"));
        for text in ["2026-11-23T10:15:40", "2026-11-23", "10:15:40Z", ""] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn zoneless_times_resolve_in_the_stores_zone() {
        assert_eq!(resolved("2026-11-23T10:15:40"), ("2026-11-23T09:15:40Z".into(), false));
        assert_eq!(resolved("2026-07-01 10:15:40.250"), ("2026-07-01T08:15:40.25Z".into(), false));
    }

    #[test]
    fn an_hour_passed_twice_takes_the_earlier_offset() {
        assert_eq!(resolved("2026-10-25T02:30:00"), ("2026-10-25T00:30:00Z".into(), true));
        assert_eq!(resolved("2026-10-25T03:00:00"), ("2026-10-25T02:00:00Z".into(), false));
    }

    #[test]
    fn a_skipped_hour_takes_the_offset_before_the_gap() {
        assert_eq!(resolved("2026-03-29T02:30:00"), ("2026-03-29T01:30:00Z".into(), true));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T10:15",
            "20261123T101540Z",
            "2026-13-23T10:15:40Z",
            "2026-02-29T10:15:40Z",
            "2026-11-23T25:15:40Z",
            "2026-11-23T10:15:40+01:00[Europe/Paris]",
            "2026-11-23T10:15:40 4111111111111111",
            "+002026-11-23T10:15:40Z",
            "23.11.2026 10:15:40",
        ] {
            assert_eq!(resolve(text, &paris()), None, "{text}");
        }
        for text in ["2026-11-31", "2026-1-1", "20261123", "2026-11-23T", "2026-11-2x", "-026-11-23"] {
            assert!(!is_date(text), "{text}");
        }
        assert!(is_date("2028-02-29"));
    }

    #[test]
    fn before_the_cutover_it_is_still_the_day_before() {
        let cutover = civil::time(4, 0, 0, 0);
        let day = |text: &str| business_day(resolve(text, &paris()).unwrap().at, &paris(), cutover);
        assert_eq!(day("2026-11-24T03:59:59"), "2026-11-23");
        assert_eq!(day("2026-11-24T04:00:00"), "2026-11-24");
        // In the store it is past midnight already, whatever offset the till writes.
        assert_eq!(day("2026-11-23T23:30:00-08:00"), "2026-11-24");
    }
}
