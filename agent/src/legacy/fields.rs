//! Reading a foreign tree by name, with a memory of what was asked for: what nobody asked for is what is not mapped.
//!
//! Invariant: a value is handed out only together with a mark that it was; a value of the wrong form is a fault with its pointer, and its
//! text is never in the fault.

use std::cell::RefCell;
use std::collections::BTreeSet;

use counterfoil_proto::money::decimal;
use counterfoil_proto::record::Fault;
use rust_decimal::Decimal;
use serde_json::Value;

use super::fault;

/// Faults of one source; further ones are not listed.
const FAULTS_MAX: usize = 32;

#[derive(Debug, Default)]
struct Memory {
    used: BTreeSet<String>,
    faults: Vec<Fault>,
    skipped: BTreeSet<String>,
}

/// A value of a foreign tree, and where it stands.
#[derive(Clone, Debug)]
pub struct Fields<'v> {
    value: &'v Value,
    pointer: String,
    /// What the root is called.
    name: &'v str,
    memory: std::rc::Rc<RefCell<Memory>>,
}

impl<'v> Fields<'v> {
    /// The whole of a source.
    pub fn root(value: &'v Value) -> Self {
        Self::under(value, "", "")
    }

    /// An object of a source that stands at `pointer`, and is called `name` where it is not mapped.
    pub(super) fn under(value: &'v Value, pointer: &str, name: &'v str) -> Self {
        Self { value, pointer: pointer.to_owned(), name, memory: std::rc::Rc::default() }
    }

    fn at(&self, value: &'v Value, token: &str) -> Self {
        let token = token.replace('~', "~0").replace('/', "~1");
        let pointer = format!("{}/{token}", self.pointer);
        Self { value, pointer, name: self.name, memory: std::rc::Rc::clone(&self.memory) }
    }

    /// What stands under that name; nothing for null. The first of many.
    pub fn get(&self, name: &str) -> Option<Self> {
        self.all(name).into_iter().next()
    }

    /// Everything that stands under that name: the items of a list, or the one that there is.
    pub fn all(&self, name: &str) -> Vec<Self> {
        let Some(value) = self.value.get(name) else { return Vec::new() };
        let inner = self.at(value, name);
        match value {
            Value::Null => {
                inner.mark();
                Vec::new()
            }
            Value::Array(items) if items.is_empty() => {
                inner.mark();
                Vec::new()
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, item)| inner.at(item, &index.to_string())).collect()
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => vec![inner],
        }
    }

    /// Whether something that is not null stands under that name; it stays not mapped.
    pub fn has(&self, name: &str) -> bool {
        self.value
            .get(name)
            .is_some_and(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()))
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.value.is_object()
    }

    /// Its own text: of a text, of a whole number, of a truth, or of an element that has attributes beside its text.
    pub fn own_text(&self) -> Option<String> {
        let (value, place) = match self.value.get("#text") {
            Some(text) => (text, self.at(text, "#text")),
            None => (self.value, self.clone()),
        };
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        place.mark();
        (!text.is_empty()).then_some(text)
    }

    /// The text under that name.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.own_text()
    }

    /// The text under that name; a fault where there is none.
    pub fn needed(&self, name: &str) -> Option<String> {
        let text = self.text(name);
        if text.is_none() {
            self.fault(name, "missing-field", "The field is missing, empty or not a text");
        }
        text
    }

    /// Whether `true` stands under that name, or a text that says so.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1")
    }

    /// The exact number in the text under that name. A JSON number with a fraction is refused, because readers round it.
    pub fn decimal(&self, name: &str) -> Option<Decimal> {
        let inner = self.get(name)?;
        if inner.value.as_number().is_some_and(serde_json::Number::is_f64) {
            self.fault(
                name,
                "number-not-string",
                "Must be a decimal string; a JSON number is refused because readers round it",
            );
            return None;
        }
        let text = inner.own_text()?;
        let number = decimal(text.strip_prefix('+').unwrap_or(&text)).ok();
        if number.is_none() {
            self.fault(name, "invalid-decimal", "Is no decimal number");
        }
        number
    }

    /// The number under that name; a fault where there is none.
    pub fn needed_decimal(&self, name: &str) -> Option<Decimal> {
        if !self.has(name) {
            self.fault(name, "missing-field", "The field is missing");
        }
        self.decimal(name)
    }

    /// A rate, which may be a JSON number: it is compared with a tolerance, and no money.
    pub fn rate(&self, name: &str) -> Option<Decimal> {
        decimal(&self.text(name)?).ok()
    }

    /// The whole number under that name, not negative; a fault where there is something else.
    pub fn needed_integer(&self, name: &str) -> Option<u64> {
        let text = self.needed(name)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.fault(name, "wrong-type", "Must be a whole number, not negative");
        }
        number
    }

    /// Notes a fault of the field under that name.
    pub fn fault(&self, name: &str, problem: &'static str, detail: &'static str) {
        let mut memory = self.memory.borrow_mut();
        if memory.faults.len() < FAULTS_MAX {
            let pointer = if name.is_empty() { self.pointer.clone() } else { format!("{}/{name}", self.pointer) };
            memory.faults.push(fault(pointer, problem, detail));
        }
    }

    /// Everything that was wrong.
    pub fn faults(&self) -> Vec<Fault> {
        self.memory.borrow().faults.clone()
    }

    /// Leaves the root out, and says why: what it tells is told elsewhere, or is nothing of ours.
    pub fn skip(&self, why: &str) {
        self.memory.borrow_mut().skipped.insert(format!("{}: {why}", self.name));
    }

    /// What was left out.
    pub fn skipped(&self) -> BTreeSet<String> {
        self.memory.borrow().skipped.clone()
    }

    fn mark(&self) {
        self.memory.borrow_mut().used.insert(self.pointer.clone());
    }

    /// What nobody asked for: names with `*` for places in lists, each once; a whole object where nothing in it was asked for.
    pub fn not_mapped(&self) -> BTreeSet<String> {
        let memory = self.memory.borrow();
        let mut names = BTreeSet::new();
        if left(self.value, &mut self.pointer.clone(), &mut self.name.to_owned(), &memory.used, &mut names) {
            names.insert(if self.name.is_empty() { "/".to_owned() } else { self.name.to_owned() });
        }
        names
    }
}

/// Gathers what is left of a value; `true` where nothing of it was used, which its parent then says.
fn left(
    value: &Value,
    pointer: &mut String,
    name: &mut String,
    used: &BTreeSet<String>,
    names: &mut BTreeSet<String>,
) -> bool {
    if used.contains(pointer.as_str()) {
        return false;
    }
    let members: Vec<(String, String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| {
                let token = key.replace('~', "~0").replace('/', "~1");
                (token.clone(), token, value)
            })
            .collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, item)| (index.to_string(), "*".to_owned(), item)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return true,
    };
    let (pointer_len, name_len) = (pointer.len(), name.len());
    let mut unused = BTreeSet::new();
    let mut all_unused = true;
    for (token, said, value) in members {
        pointer.push('/');
        pointer.push_str(&token);
        name.push('/');
        name.push_str(&said);
        if left(value, pointer, name, used, names) {
            unused.insert(name.clone());
        } else {
            all_unused = false;
        }
        pointer.truncate(pointer_len);
        name.truncate(name_len);
    }
    if !all_unused {
        names.append(&mut unused);
    }
    all_unused
}
