//! The configuration as it was written: file and environment, each value typed like its key and with where it stands.
//!
//! Invariant: a [`Written`] holds exactly the keys of its [`Schema`], in range; whatever else was written is a [`Fault`] that names
//! file and line. All faults are reported at once. Relations between keys are deliberately not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::key::{self, Form, Key, Presence};

/// What environment variables of ours begin with; tables and keys follow, separated by `__`.
pub const ENVIRONMENT_PREFIX: &str = "COUNTERFOIL__";

/// The keys of a program, and how to speak of them.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Whose configuration it is, in messages.
    pub program: &'static str,
    /// The commented sample.
    pub sample: &'static str,
    /// All keys, in the order in which the sample and `check-config` show them.
    pub keys: &'static [Key],
    /// Keys that were renamed: the old name and the new one.
    pub renamed: &'static [(&'static str, &'static str)],
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file.
    Line(usize),
    /// In the environment; the variable's name.
    Variable(String),
    /// Nowhere.
    Default,
}

/// Something that was written and cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file that was read.
    pub file: PathBuf,
    /// Where in it, or beside it.
    pub origin: Origin,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Line(line) => write!(formatter, "{}:{line}: {}", self.file.display(), self.message),
            Origin::Variable(name) => write!(formatter, "environment variable {name}: {}", self.message),
            Origin::Default => write!(formatter, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// A value, typed like its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Form::Text`], [`Form::Path`] and [`Form::Choice`].
    Text(String),
    /// Of [`Form::Texts`].
    Texts(Vec<String>),
    /// Of [`Form::Tables`].
    Tables(Vec<Written>),
    /// Of [`Form::Flag`].
    Flag(bool),
    /// Of [`Form::Count`], [`Form::Bytes`] in bytes and [`Form::Duration`] in milliseconds.
    Number(u64),
}

/// Every key that has a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    keys: &'static [Key],
    values: BTreeMap<&'static str, (Value, Origin)>,
}

impl Written {
    /// Reads the file's text, lays the environment over it, and fills in the defaults.
    pub fn read(
        file: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        schema: &Schema,
    ) -> Result<Self, Vec<Fault>> {
        let written = Self { keys: schema.keys, values: BTreeMap::new() };
        let mut reading = Reading { file, text, schema: *schema, written, faults: Vec::new() };
        match DeTable::parse(text) {
            Ok(table) => reading.table("", table.get_ref()),
            Err(error) => {
                let origin = error.span().map_or(Origin::Default, |span| Origin::Line(line_of(text, span)));
                reading.fault(origin, format!("this is not TOML: {}", error.message().replace('\n', "; ")));
            }
        }
        reading.environment(environment);
        if reading.faults.is_empty() {
            reading.fill_in();
        }
        if reading.faults.is_empty() { Ok(reading.written) } else { Err(reading.faults) }
    }

    /// The text of a key, if it was written or has a default.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            Value::Texts(_) | Value::Tables(_) | Value::Flag(_) | Value::Number(_) => None,
        }
    }

    /// The texts of a key with a default.
    pub fn texts(&self, name: &str) -> &[String] {
        match self.get(name) {
            Some(Value::Texts(texts)) => texts,
            Some(Value::Text(_) | Value::Tables(_) | Value::Flag(_) | Value::Number(_)) | None => &[],
        }
    }

    /// The tables of a key, in the order of the file; none where it was not written.
    pub fn tables(&self, name: &str) -> &[Self] {
        match self.get(name) {
            Some(Value::Tables(tables)) => tables,
            Some(Value::Text(_) | Value::Texts(_) | Value::Flag(_) | Value::Number(_)) | None => &[],
        }
    }

    /// The number of a key, if it was written or has a default.
    pub fn number_or_none(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => Some(*number),
            Value::Text(_) | Value::Texts(_) | Value::Tables(_) | Value::Flag(_) => None,
        }
    }

    /// The flag of a key with a default.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Some(&Value::Flag(true))
    }

    /// The number of a key with a default; bytes, or milliseconds of a duration.
    pub fn number(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Value::Number(number)) => *number,
            Some(Value::Text(_) | Value::Texts(_) | Value::Tables(_) | Value::Flag(_)) | None => {
                unreachable!("{name} is a number with a default in its table of keys")
            }
        }
    }

    /// Where the value of a key was written.
    pub fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).map(|(value, _)| value)
    }
}

/// As TOML, with where each value comes from.
impl fmt::Display for Written {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = "";
        for key in self.keys {
            let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if of != table {
                table = of;
                writeln!(formatter, "\n[{table}]")?;
            }
            if let Some((Value::Tables(tables), _)) = self.values.get(key.name) {
                // Keys of the table that stand below these would belong to the last of them: there are none, lists of tables come last.
                tables.iter().try_for_each(|table| write!(formatter, "\n[[{}]]\n{}", key.name, Bare(table)))?;
                continue;
            }
            let Some((value, origin)) = self.values.get(key.name) else {
                writeln!(formatter, "# {name} is not set")?;
                continue;
            };
            write!(formatter, "{name} = {}", Shown(value, key.form))?;
            match origin {
                Origin::Line(line) => writeln!(formatter, "  # line {line}")?,
                Origin::Variable(variable) => writeln!(formatter, "  # {variable}")?,
                Origin::Default => writeln!(formatter, "  # default")?,
            }
        }
        Ok(())
    }
}

/// The keys of one table of a list that were written or have a default.
struct Bare<'a>(&'a Written);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in self.0.keys {
            match self.0.values.get(key.name) {
                Some((value, Origin::Line(line))) => {
                    writeln!(formatter, "{} = {}  # line {line}", key.name, Shown(value, key.form))?;
                }
                Some((value, _)) => writeln!(formatter, "{} = {}", key.name, Shown(value, key.form))?,
                None => {}
            }
        }
        Ok(())
    }
}

struct Shown<'a>(&'a Value, Form);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Value::Text(text), _) => write!(formatter, "{text:?}"),
            (Value::Texts(texts), _) => write!(formatter, "{texts:?}"),
            (Value::Tables(tables), _) => write!(formatter, "# {} tables", tables.len()),
            (Value::Flag(flag), _) => write!(formatter, "{flag}"),
            (Value::Number(number), Form::Duration { .. }) => {
                write!(formatter, "\"{}\"", in_units(*number, &DURATIONS))
            }
            (Value::Number(number), Form::Bytes { .. }) => write!(formatter, "\"{}\"", in_units(*number, &SIZES)),
            (Value::Number(number), _) => write!(formatter, "{number}"),
        }
    }
}

struct Reading<'a> {
    file: &'a Path,
    text: &'a str,
    schema: Schema,
    written: Written,
    faults: Vec<Fault>,
}

impl Reading<'_> {
    fn fault(&mut self, origin: Origin, message: String) {
        self.faults.push(Fault { file: self.file.to_owned(), origin, message });
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let line = Origin::Line(line_of(self.text, name.span()));
            let full =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let is_table = self
                .schema
                .keys
                .iter()
                .any(|key| key.name.strip_prefix(&full).is_some_and(|rest| rest.starts_with('.')));
            let value = value.get_ref();
            match value.as_table() {
                Some(inner) if is_table => self.table(&full, inner),
                None if is_table => {
                    self.fault(line, format!("`{full}` is a table; write [{full}] and its keys below"));
                }
                Some(_) | None => match (self.schema.keys.iter().find(|key| key.name == full), value) {
                    (Some(Key { name, form: Form::Tables(keys), .. }), DeValue::Array(items)) => {
                        self.list(name, keys, line, items);
                    }
                    _ => self.key(&full, line, |form| from_toml(form, value)),
                },
            }
        }
    }

    /// Reads a list of tables, each by the keys of its own.
    fn list(&mut self, name: &'static str, keys: &'static [Key], line: Origin, items: &[Spanned<DeValue<'_>>]) {
        let mut tables = Vec::new();
        for item in items {
            let Some(table) = item.get_ref().as_table() else {
                self.fault(line.clone(), format!("`{name}` must be {}", expected(Form::Tables(keys))));
                continue;
            };
            let schema = Schema { keys, renamed: &[], ..self.schema };
            let written = Written { keys, values: BTreeMap::new() };
            let mut inner = Reading { file: self.file, text: self.text, schema, written, faults: Vec::new() };
            inner.table("", table);
            if inner.faults.is_empty() {
                inner.fill_in();
            }
            let start = Origin::Line(line_of(self.text, item.span()));
            for mut fault in inner.faults {
                if fault.origin == Origin::Default {
                    fault.origin = start.clone();
                }
                fault.message = format!("[[{name}]]: {}", fault.message);
                self.faults.push(fault);
            }
            tables.push(inner.written);
        }
        self.written.values.insert(name, (Value::Tables(tables), line));
    }

    fn environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        for (variable, text) in environment {
            let Some(path) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let full = path.replace("__", ".").to_ascii_lowercase();
            self.key(&full, Origin::Variable(variable), |form| from_text(form, &text));
        }
    }

    fn key(&mut self, full: &str, origin: Origin, read: impl FnOnce(Form) -> Result<Value, String>) {
        if let Some((_, new)) = self.schema.renamed.iter().find(|(old, _)| *old == full) {
            return self.fault(origin, format!("`{full}` has been renamed to `{new}`; write that instead"));
        }
        let Some(key) = key::find(self.schema.keys, full) else {
            let hint = key::nearest(self.schema.keys, full).map_or_else(
                || format!("remove it, or see the sample {}", self.schema.sample),
                |near| format!("did you mean `{near}`?"),
            );
            return self.fault(origin, format!("`{full}` is not a key of the {}; {hint}", self.schema.program));
        };
        match read(key.form) {
            Ok(value) => {
                self.written.values.insert(key.name, (value, origin));
            }
            Err(expected) => self.fault(origin, format!("`{full}` must be {expected}")),
        }
    }

    fn fill_in(&mut self) {
        for Key { name, form, presence, reason } in self.schema.keys {
            if self.written.values.contains_key(name) {
                continue;
            }
            match presence {
                Presence::Default(text) => {
                    let value =
                        from_text(*form, text).unwrap_or_else(|_| unreachable!("the default of {name} is in range"));
                    self.written.values.insert(name, (value, Origin::Default));
                }
                Presence::Required => self.fault(Origin::Default, format!("`{name}` is missing; {reason}")),
                Presence::Optional => {}
            }
        }
    }
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

fn from_toml(form: Form, value: &DeValue<'_>) -> Result<Value, String> {
    match (form, value) {
        (Form::Texts, DeValue::Array(items)) => {
            let texts: Option<Vec<String>> =
                items.iter().map(Spanned::get_ref).map(|item| item.as_str().map(str::to_owned)).collect();
            texts.map(Value::Texts).ok_or_else(|| expected(form))
        }
        (Form::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (Form::Count { .. } | Form::Bytes { .. }, DeValue::Integer(integer)) if integer.radix() == 10 => {
            from_text(form, &integer.as_str().replace('_', ""))
        }
        (
            Form::Text | Form::Path | Form::Choice(_) | Form::Bytes { .. } | Form::Duration { .. },
            DeValue::String(text),
        ) => from_text(form, text),
        _ => Err(expected(form)),
    }
}

fn from_text(form: Form, text: &str) -> Result<Value, String> {
    let text = text.trim();
    let in_range = |number: Option<u64>, min, max| {
        number.filter(|number| (min..=max).contains(number)).map(Value::Number).ok_or_else(|| expected(form))
    };
    match form {
        Form::Text | Form::Path if text.is_empty() => Err(expected(form)),
        Form::Text | Form::Path => Ok(Value::Text(text.to_owned())),
        Form::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
        Form::Choice(_) | Form::Tables(_) => Err(expected(form)),
        Form::Texts => Ok(Value::Texts(
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
        )),
        Form::Flag => text.parse().map(Value::Flag).map_err(|_| expected(form)),
        Form::Count { min, max, .. } => in_range(text.parse().ok(), min, max),
        Form::Bytes { min, max } => in_range(text.parse().ok().or_else(|| of_units(text, &SIZES)), min, max),
        Form::Duration { min_ms, max_ms } => in_range(of_units(text, &DURATIONS), min_ms, max_ms),
    }
}

fn expected(form: Form) -> String {
    match form {
        Form::Text => "text that is not empty, in quotes".to_owned(),
        Form::Path => "a path, in quotes".to_owned(),
        Form::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
        Form::Texts => "a list of texts, such as [\"one\", \"two\"]".to_owned(),
        Form::Tables(_) => "a list of tables, in the file, each under its name in double brackets".to_owned(),
        Form::Flag => "true or false".to_owned(),
        Form::Count { unit, min, max } => format!("a whole number of {unit} from {min} to {max}"),
        Form::Bytes { min, max } => {
            format!("bytes from \"{}\" to \"{}\", such as \"16MiB\"", in_units(min, &SIZES), in_units(max, &SIZES))
        }
        Form::Duration { min_ms, max_ms } => format!(
            "a duration with its unit from \"{}\" to \"{}\", such as \"30s\"",
            in_units(min_ms, &DURATIONS),
            in_units(max_ms, &DURATIONS)
        ),
    }
}

/// Milliseconds of a duration with its unit, such as "30s".
pub fn duration_ms(text: &str) -> Option<u64> {
    of_units(text.trim(), &DURATIONS)
}

/// Longest first, so that "ms" is not read as "s", and a number is shown in the largest unit that it is whole in.
const DURATIONS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn of_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn in_units(number: u64, units: &[(&str, u64)]) -> String {
    let whole =
        units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor)).or_else(|| units.last());
    whole.map_or_else(|| number.to_string(), |(name, factor)| format!("{}{name}", number / factor))
}
