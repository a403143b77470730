//! Units of quantity: the common codes of UN/ECE Recommendation 20 and the names that tills use for them.
//!
//! Invariant: one unit of counting has one code here, so that what is received in pieces (`H87`) and sold each (`EA`) meets in
//! one stock. Nothing is converted: grams and kilograms stay apart.

use alloc::string::String;

/// The unit of a quantity that names none.
pub(crate) const EACH: &str = "EA";

/// Codes, each with the names (in capitals) that mean the same.
const UNITS: &[(&str, &[&str])] = &[
    (
        EACH,
        &[
            "EA", "H87", "C62", "NAR", "PCE", "PCS", "PC", "PIECE", "PIECES", "EACH", "UNIT", "UNITS", "ST", "STK",
            "STUECK", "UN",
        ],
    ),
    ("KGM", &["KGM", "KG", "KGS", "KILO", "KILOGRAM"]),
    ("GRM", &["GRM", "G", "GR", "GRAM"]),
    ("HGM", &["HGM", "HG"]),
    ("MGM", &["MGM", "MG"]),
    ("TNE", &["TNE", "T", "TON", "TONNE"]),
    ("LBR", &["LBR", "LB", "LBS", "POUND"]),
    ("ONZ", &["ONZ", "OZ", "OUNCE"]),
    ("LTR", &["LTR", "L", "LT", "LITRE", "LITER"]),
    ("MLT", &["MLT", "ML"]),
    ("CLT", &["CLT", "CL"]),
    ("DLT", &["DLT", "DL"]),
    ("GLL", &["GLL", "GAL", "GALLON"]),
    ("GLI", &["GLI"]),
    ("OZA", &["OZA", "FLOZ", "FL OZ"]),
    ("PTL", &["PTL"]),
    ("QTL", &["QTL"]),
    ("MTR", &["MTR", "M", "METRE", "METER"]),
    ("CMT", &["CMT", "CM"]),
    ("MMT", &["MMT", "MM"]),
    ("FOT", &["FOT", "FT", "FOOT"]),
    ("INH", &["INH", "IN", "INCH"]),
    ("YRD", &["YRD", "YD", "YARD"]),
    ("MTK", &["MTK", "M2", "SQM"]),
    ("MTQ", &["MTQ", "M3", "CBM"]),
    ("FTK", &["FTK", "SQFT"]),
    ("PR", &["PR", "PAIR"]),
    ("SET", &["SET"]),
    ("DZN", &["DZN", "DZ", "DOZEN"]),
    ("GRO", &["GRO", "GROSS"]),
    ("CEN", &["CEN"]),
    ("MIL", &["MIL"]),
    ("PK", &["PK", "PACK", "XPK"]),
    ("BX", &["BX", "BOX", "XBX"]),
    ("CT", &["CT", "CTN", "CARTON", "XCT"]),
    ("CS", &["CS", "CASE", "XCS"]),
    ("BG", &["BG", "BAG", "XBG"]),
    ("BO", &["BO", "BOTTLE", "XBO"]),
    ("CA", &["CA", "CAN", "XCA"]),
    ("RO", &["RO", "ROLL", "XRO"]),
    ("PF", &["PF", "PALLET", "XPF", "XPX"]),
    ("HUR", &["HUR", "H", "HR", "HOUR"]),
    ("MIN", &["MIN", "MINUTE"]),
    ("DAY", &["DAY"]),
    ("KWH", &["KWH"]),
];

/// The code of the unit that is written as `text`; `None` where nobody knows it.
pub(crate) fn code_of(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let known = |&&(_, names): &&(&str, &[&str])| names.iter().any(|name| name.eq_ignore_ascii_case(text));
    UNITS.iter().find(known).map(|&(code, _)| code)
}

/// The unit that stock is kept in: the code where `text` is known, else the text, so that nothing is added up that may not be.
pub(crate) fn code_or_text(text: Option<&str>) -> String {
    text.map_or(EACH, |text| code_of(text).unwrap_or(text)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn names_of_tills_become_codes() {
        for (text, code) in
            [("kg", "KGM"), ("Kg", "KGM"), ("EA", "EA"), ("pcs", "EA"), ("H87", "EA"), ("C62", "EA"), ("l", "LTR")]
        {
            assert_eq!(code_of(text), Some(code), "{text}");
        }
        assert_eq!(code_of("furlong"), None);
        assert_eq!(code_of(""), None);
    }

    #[test]
    fn every_name_means_one_unit_and_every_code_itself() {
        let mut names: Vec<&str> = UNITS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for (code, names) in UNITS {
            assert_eq!(code_of(code), Some(*code));
            assert!(names.iter().all(|name| name.bytes().all(|byte| !byte.is_ascii_lowercase())));
        }
    }
}
