//! Made-up sales in the shape of the Online Retail data set, with their own golden sums.
//!
//! The oddities of the real set are all in: repeated lines, cancellations, write-offs at price zero, prices of a tenth of a penny, fees,
//! vouchers, bad debt, invoices over two timestamps, unknown customers. Invariant: the sums are counted here in thousandths of a pound as
//! integers, while drawing; no decimal type and none of the code under test has a part in them.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use crate::golden::{DaySums, Golden, Sums};
use crate::random::Random;
use crate::retail_csv::Row;

const COUNTRIES: &[&str] = &["United Kingdom", "United Kingdom", "United Kingdom", "France", "EIRE", "Channel Islands"];
const FEES: &[(&str, &str)] =
    &[("POST", "POSTAGE"), ("DOT", "DOTCOM POSTAGE"), ("BANK CHARGES", "Bank Charges"), ("M", "Manual")];
const WRITE_OFFS: &[&str] = &["", "check", "damages", "thrown away", "?", "sold as set on dotcom"];
const ITEMS: u64 = 400;
const INVOICES_A_DAY: u64 = 40;

/// Sales and what they come to.
#[derive(Debug)]
pub struct Synthetic {
    /// The rows, by time.
    pub rows: Vec<Row>,
    /// Their sums, counted while drawing.
    pub golden: Golden,
}

/// Draws at least `rows` rows.
pub fn draw(rows: usize, seed: u64) -> Synthetic {
    let mut drawer = Drawer {
        random: Random::named(seed, "synthetic"),
        rows: Vec::with_capacity(rows),
        sums: Thousandths::default(),
    };
    let mut number = 0;
    while drawer.rows.len() < rows {
        drawer.invoice(number);
        number += 1;
    }
    Synthetic { rows: drawer.rows, golden: drawer.sums.golden() }
}

struct Drawer {
    random: Random,
    rows: Vec<Row>,
    sums: Thousandths,
}

/// What the lines of an invoice share.
struct Head {
    number: String,
    day: String,
    minute: u64,
    customer: String,
    country: &'static str,
}

impl Drawer {
    fn invoice(&mut self, number: u64) {
        let prefix = match self.random.below(100) {
            0 => "A",
            1..=14 => "C",
            _ => "",
        };
        let customer =
            if self.random.one_in(4) { String::new() } else { format!("{}.0", 12_000 + self.random.below(500)) };
        let head = Head {
            number: format!("{prefix}{}", 600_000 + number),
            day: day(number / INVOICES_A_DAY),
            minute: 480 + (number % INVOICES_A_DAY) * 15,
            customer,
            country: self.random.pick(COUNTRIES),
        };
        if prefix == "A" {
            let price = if self.random.one_in(2) { 11_062_060 } else { -11_062_060 };
            self.line(&head, ("B", "Adjust bad debt"), 1, price, 0);
        } else if prefix.is_empty() && self.random.one_in(12) {
            let item = self.item();
            let quantity = -1 - signed(self.random.below(300));
            let note = self.random.pick(WRITE_OFFS);
            self.line(&head, (&item, note), quantity, 0, 0);
        } else {
            self.goods(&head, if prefix == "C" { -1 } else { 1 });
        }
    }

    fn goods(&mut self, head: &Head, sign: i64) {
        // One in forty spans two timestamps, as 43 real ones do.
        let minutes = if self.random.one_in(40) { 2 } else { 1 };
        for _ in 0..=self.random.below(30) {
            let minute = self.random.below(minutes);
            let quantity = sign * (1 + signed(self.random.below(24)));
            match self.random.below(40) {
                0 => {
                    let fee = self.random.pick(FEES);
                    let price = 1_000 + signed(self.random.below(40_000)) * 10;
                    self.line(head, fee, sign, price, minute);
                }
                1 => self.line(head, ("PADS", "PADS TO MATCH ALL CUSHIONS"), quantity, 1, minute),
                2 if sign > 0 => {
                    let item = self.item();
                    self.line(head, (&item, ""), quantity, 0, minute);
                }
                3 => self.line(head, ("gift_0001_20", "Dotcomgiftshop Gift Voucher \u{a3}20.00"), sign, 16_670, minute),
                4 => {
                    // The same line twice: two lines of one document, not a repetition to be dropped.
                    let item = self.item();
                    for _ in 0..2 {
                        self.line(head, (&item, "TWICE, \"QUOTED\""), quantity, 2_550, minute);
                    }
                }
                _ => {
                    let item = self.item();
                    let price = (signed(self.random.below(1_500)) + 10) * 10;
                    self.line(head, (&item, "WHITE METAL LANTERN"), quantity, price, minute);
                }
            }
        }
    }

    fn item(&mut self) -> String {
        let number = self.random.below(ITEMS);
        let variant = ["", "A", "B"].get(usize::try_from(number % 3).unwrap_or(0)).copied().unwrap_or_default();
        format!("{}{variant}", 20_000 + number)
    }

    fn line(&mut self, head: &Head, (code, description): (&str, &str), quantity: i64, thousandths: i64, later: u64) {
        let minute = head.minute + later;
        self.sums.add(head, quantity, thousandths);
        self.rows.push(Row {
            invoice_no: head.number.clone(),
            stock_code: code.to_owned(),
            description: description.to_owned(),
            quantity,
            invoice_date: format!("{} {:02}:{:02}:00", head.day, minute / 60, minute % 60),
            unit_price: Decimal::new(thousandths, 3),
            customer_id: head.customer.clone(),
            country: head.country.to_owned(),
        });
    }
}

/// The day that lies `index` days after the first.
fn day(index: u64) -> String {
    let days = i64::try_from(index).expect("fewer days than an i64 counts");
    let first = jiff::civil::date(2010, 12, 1);
    first.checked_add(jiff::Span::new().days(days)).expect("within the calendar").to_string()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a number drawn below a small bound")
}

/// Sums in thousandths of a pound.
#[derive(Default)]
struct Thousandths {
    all: [i64; 3],
    by_country: BTreeMap<&'static str, [i64; 3]>,
    by_day: BTreeMap<String, [i64; 3]>,
    invoices: BTreeSet<String>,
}

impl Thousandths {
    fn add(&mut self, head: &Head, quantity: i64, thousandths: i64) {
        let country = self.by_country.entry(head.country).or_default();
        let of_day = self.by_day.entry(head.day.clone()).or_default();
        for sums in [&mut self.all, country, of_day] {
            for (sum, more) in sums.iter_mut().zip([1, quantity, quantity * thousandths]) {
                *sum += more;
            }
        }
        self.invoices.insert(head.number.clone());
    }

    fn golden(self) -> Golden {
        let sums = |[rows, quantity, amount]: [i64; 3]| Sums {
            rows: rows.unsigned_abs(),
            quantity: Decimal::from(quantity),
            amount: Decimal::new(amount, 3),
        };
        let of_day = |values: [i64; 3]| DaySums { rows: sums(values).rows, amount: sums(values).amount };
        Golden {
            all: sums(self.all),
            invoices: self.invoices.len() as u64,
            by_country: self
                .by_country
                .into_iter()
                .map(|(country, values)| (country.to_owned(), sums(values)))
                .collect(),
            by_day: self.by_day.into_iter().map(|(day, values)| (day, of_day(values))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_of_counting_agree() {
        let synthetic = draw(5_000, 7);
        assert!(synthetic.rows.len() >= 5_000);
        assert_eq!(synthetic.golden.differences(&Golden::of_rows(&synthetic.rows)), Vec::<String>::new());
    }

    #[test]
    fn every_oddity_of_the_real_set_is_in() {
        let rows = draw(5_000, 1).rows;
        let any = |what: fn(&Row) -> bool| rows.iter().any(what);
        assert!(any(|row| row.invoice_no.starts_with('C') && row.quantity < 0));
        assert!(any(|row| row.invoice_no.starts_with('A') && row.unit_price < Decimal::ZERO));
        assert!(any(|row| row.quantity < 0 && row.unit_price.is_zero()));
        assert!(any(|row| row.quantity > 0 && row.unit_price.is_zero()));
        assert!(any(|row| row.unit_price == Decimal::new(1, 3)));
        assert!(any(|row| row.customer_id.is_empty()));
        assert!(any(|row| row.stock_code == "POST"));
        assert!(rows.windows(2).any(|pair| pair.first() == pair.last()), "a line repeated");
        let two_times = |pair: &[Row]| {
            let [a, b] = pair else { return false };
            a.invoice_no == b.invoice_no && a.invoice_date != b.invoice_date
        };
        assert!(rows.windows(2).any(two_times), "an invoice over two timestamps");
    }

    #[test]
    fn a_seed_is_a_data_set() {
        assert_eq!(draw(500, 3).rows, draw(500, 3).rows);
        assert_ne!(draw(500, 3).rows, draw(500, 4).rows);
    }
}
