//! Metrics as Prometheus' text format 0.0.4: families with a stable name, form and help, and what is written of them.
//!
//! Invariant: a name is for ever, and is written once, in its program's table; the text is whole and valid whatever stands in a label. The
//! text is written here and not by a library because nearly all figures are a snapshot that somebody else keeps (the agent's status, the hub's
//! ledger), which the libraries would keep a second time; and theirs is `OpenMetrics`, in which a counter has another name than in its TYPE line.

use std::fmt::{Display, Write};
use std::time::Duration;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Goes up and down.
    Gauge,
    /// Only rises, until the program starts again.
    Counter,
    /// Durations by classes.
    Histogram,
}

impl Form {
    /// As a TYPE line has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric with all its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// For ever.
    pub name: &'static str,
    /// Gauge, counter or histogram.
    pub form: Form,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// A sentence; one line, no backslash.
    pub help: &'static str,
}

/// Makes a constant of each family, and `FAMILIES` of all of them.
#[macro_export]
macro_rules! families {
    ($($constant:ident: $form:ident $name:literal $labels:tt $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: $crate::metrics::Family = $crate::metrics::Family {
                name: $name,
                form: $crate::metrics::Form::$form,
                labels: &$labels,
                help: $help,
            };
        )*

        /// All of them, in the order in which they are written.
        pub const FAMILIES: &[$crate::metrics::Family] = &[$($constant),*];
    };
}

/// The text, while it is being written.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// The content type of the text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// A family with a sample for each set of label values; with none, its help alone.
    pub fn samples<'a, V: Display, const N: usize>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = ([&'a str; N], V)>,
    ) {
        debug_assert_eq!(family.labels.len(), N, "{}", family.name);
        self.head(family);
        for (values, value) in samples {
            self.sample(family.name, family.labels.iter().copied().zip(values), value);
        }
    }

    /// A family without labels.
    pub fn value(&mut self, family: &Family, value: impl Display) {
        self.samples(family, [([], value)]);
    }

    /// A family without labels of something that may not be known; then there is no sample.
    pub fn value_if_known<V: Display>(&mut self, family: &Family, value: Option<V>) {
        self.samples(family, value.map(|value| ([], value)));
    }

    /// A family that says which of `all` holds: 1 for that, 0 for the others. With `None` no sample.
    pub fn one_of(&mut self, family: &Family, all: &[&str], holds: Option<&str>) {
        let samples = holds.map(|holds| all.iter().map(move |state| ([*state], u8::from(*state == holds))));
        self.samples(family, samples.into_iter().flatten());
    }

    /// A family of durations.
    pub fn durations(&mut self, family: &Family, durations: &Durations) {
        self.head(family);
        let [count, sum] = ["count", "sum"].map(|part| format!("{}_{part}", family.name));
        let bucket = format!("{}_bucket", family.name);
        let mut below = 0_u64;
        for (class, count) in BOUNDS_US.iter().zip(durations.classes) {
            below = below.saturating_add(count);
            self.sample(&bucket, [("le", Seconds(*class).to_string().as_str())], below);
        }
        self.sample(&bucket, [("le", "+Inf")], durations.count());
        self.sample(&sum, [], Seconds(durations.sum_us));
        self.sample(&count, [], durations.count());
    }

    /// The text as it is now.
    pub fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, family: &Family) {
        let Family { name, form, help, .. } = family;
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", form.as_str()));
    }

    fn sample<'a>(&mut self, name: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>, value: impl Display) {
        self.0.push_str(name);
        let mut before = '{';
        for (label, of) in labels {
            self.line(format_args!("{before}{label}=\""));
            for letter in of.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    letter => self.0.push(letter),
                }
            }
            self.0.push('"');
            before = ',';
        }
        if before == ',' {
            self.0.push('}');
        }
        self.line(format_args!(" {value}\n"));
    }

    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0.write_fmt(arguments).expect("writing to a String does not fail");
    }
}

/// Microseconds, shown in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub u64);

impl Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        formatter.write_str(whole.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Upper bounds of the classes, in microseconds: from a good solid-state disk to a card that is about to die.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    classes: [u64; BOUNDS_US.len()],
    longer: u64,
    sum_us: u64,
}

impl Durations {
    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS_US.iter().position(|bound| micros <= *bound);
        let count = class.and_then(|class| self.classes.get_mut(class)).unwrap_or(&mut self.longer);
        *count = count.saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(micros);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.classes.iter().fold(self.longer, |sum, class| sum.saturating_add(*class))
    }
}

/// The families of a program as a table in Markdown, as `config/prometheus/metrics.md` has it.
pub fn table(families: &[Family]) -> String {
    let mut text = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for Family { name, form, labels, help } in families {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(text, "| `{name}` | {} | {labels} | {help} |", form.as_str())
            .expect("writing to a String does not fail");
    }
    text
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro is for tables that others read")]
mod tests {
    use super::*;

    families! {
        PLAIN: Gauge "a_plain" [] "Plain.";
        LABELLED: Counter "a_labelled_total" ["one", "two"] "Labelled.";
        STATE: Gauge "a_state" ["state"] "State.";
        TIME: Histogram "a_time_seconds" [] "Time.";
    }

    #[test]
    fn whatever_stands_in_a_label_the_text_is_whole() {
        let mut text = Exposition::default();
        text.value(&PLAIN, 7);
        text.samples(&LABELLED, [(["a\"b\\c\nd", "é"], 1), (["", "}"], 2)]);
        text.one_of(&STATE, &["on", "off"], Some("off"));
        let expected = "# HELP a_plain Plain.\n# TYPE a_plain gauge\na_plain 7\n\
            # HELP a_labelled_total Labelled.\n# TYPE a_labelled_total counter\n\
            a_labelled_total{one=\"a\\\"b\\\\c\\nd\",two=\"é\"} 1\na_labelled_total{one=\"\",two=\"}\"} 2\n\
            # HELP a_state State.\n# TYPE a_state gauge\na_state{state=\"on\"} 0\na_state{state=\"off\"} 1\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn what_is_not_known_has_no_sample() {
        let mut text = Exposition::default();
        text.value_if_known(&PLAIN, None::<u64>);
        text.one_of(&STATE, &["on", "off"], None);
        assert!(text.finish().lines().all(|line| line.starts_with('#')));
    }

    #[test]
    fn classes_count_all_that_took_no_longer() {
        let mut durations = Durations::default();
        for micros in [100, 250, 251, 3_000_000, 60_000_000] {
            durations.add(Duration::from_micros(micros));
        }
        let mut text = Exposition::default();
        text.durations(&TIME, &durations);
        let text = text.finish();
        for line in [
            "a_time_seconds_bucket{le=\"0.00025\"} 2",
            "a_time_seconds_bucket{le=\"0.0005\"} 3",
            "a_time_seconds_bucket{le=\"2.5\"} 3",
            "a_time_seconds_bucket{le=\"10\"} 4",
            "a_time_seconds_bucket{le=\"+Inf\"} 5",
            "a_time_seconds_sum 63.000601",
            "a_time_seconds_count 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_table_names_each_family_once() {
        let table = table(FAMILIES);
        assert_eq!(table.lines().count(), 2 + FAMILIES.len());
        assert!(table.contains("| `a_labelled_total` | counter | `one`, `two` | Labelled. |"));
    }
}
