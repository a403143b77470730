//! Sources that are JSON: which objects in them are mapped, and by what.
//!
//! Invariant: nothing of a source is left out in silence. An object that is mapped stands under a name of its [`Shape`], or is the whole
//! source and known by a member; what stands beside it is named as not mapped; a source without any is refused with what was looked for.
//! Deliberately not known here: what any system calls its fields.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil_proto::record::{Kind, Refusal};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Fields, Mapped, fault, finish};

/// A document of ours before it is judged.
pub type Document = (Kind, Map<String, Value>);

/// Objects of one kind in the sources of a system, and how each of them is mapped.
#[derive(Debug)]
pub struct Shape {
    /// The name that one of them stands under.
    pub one: &'static str,
    /// The name that a list of them stands under.
    pub many: &'static str,
    /// Members of which each tells that a whole source is one of them.
    pub told_by: &'static [&'static str],
    /// Whether its system adds to it and sends it again, as orders. Then its documents have no digest of the source, so that what was
    /// recorded of it stays equal.
    pub lives: bool,
    /// Whether it tells of a shelf: a store has one location, so that a source that names two is refused.
    pub of_one_location: bool,
    /// The documents that it makes; none where it says so by [`Fields::skip`].
    pub map: fn(&Fields<'_>) -> Vec<Document>,
}

/// An object that is mapped.
struct Found<'s, 'v> {
    shape: &'s Shape,
    value: &'v Value,
    pointer: String,
    name: String,
    text: &'v str,
}

/// Maps everything that the shapes find.
pub(super) fn map(source: &[u8], profile: &str, shapes: &[Shape]) -> Vec<Result<Mapped, Refusal>> {
    let read = std::str::from_utf8(source).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()));
    let read = read.and_then(|text| {
        let root: Result<Value, _> = serde_json::from_str(text);
        let root = root.map_err(|error| format!("not JSON at line {}, column {}", error.line(), error.column()))?;
        Ok((text.trim(), root))
    });
    let (text, root) = match read {
        Ok(read) => read,
        Err(why) => {
            return vec![Err(Refusal::Unreadable(fault("", "not-json", format!("The body is {why}"))))];
        }
    };
    let Some(members) = root.as_object() else {
        let detail = format!("The body is no JSON object; looked for {}", looked_for(shapes));
        return vec![Err(Refusal::Unreadable(fault("", "not-an-object", detail)))];
    };
    let texts: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
    let found = find(&root, members, text, &texts, shapes);
    if found.is_empty() && !shapes.iter().any(|shape| members.get(shape.many).is_some_and(Value::is_array)) {
        let detail = format!("Holds nothing that this profile maps; looked for {}", looked_for(shapes));
        return vec![Err(Refusal::Invalid(vec![fault("", "not-mapped", detail)]))];
    }
    if let Some(refusal) = several_locations(&found) {
        return vec![Err(refusal)];
    }
    let (mut results, mut beside) = (Vec::new(), beside(members, &found));
    for one in &found {
        let fields = Fields::under(one.value, &one.pointer, &one.name);
        let documents = (one.shape.map)(&fields);
        results.extend(finish(&fields, documents, (!one.shape.lives).then_some(one.text.as_bytes()), profile));
        beside.extend(fields.skipped());
    }
    let is_empty = results.is_empty();
    match results.iter_mut().find_map(|result| result.as_mut().ok()) {
        Some(first) => first.warnings.extend(beside.iter().map(|name| format!("not mapped: {name}"))),
        None if is_empty && !beside.is_empty() => {
            let faults = beside.iter().map(|name| fault("", "not-mapped", format!("Is not mapped: {name}"))).collect();
            results.push(Err(Refusal::Invalid(faults)));
        }
        None => {}
    }
    results
}

fn find<'s, 'v>(
    root: &'v Value,
    members: &'v Map<String, Value>,
    text: &'v str,
    texts: &BTreeMap<String, &'v RawValue>,
    shapes: &'s [Shape],
) -> Vec<Found<'s, 'v>> {
    let is_whole = |shape: &&Shape| shape.told_by.iter().any(|name| members.contains_key(*name));
    if let Some(shape) = shapes.iter().find(is_whole) {
        return vec![Found { shape, value: root, pointer: String::new(), name: String::new(), text }];
    }
    let mut found = Vec::new();
    for shape in shapes {
        let text_of = |name: &str| texts.get(name).map_or("", |text| text.get());
        if let Some(value @ Value::Object(_)) = members.get(shape.one) {
            let pointer = format!("/{}", shape.one);
            found.push(Found { shape, value, name: pointer.clone(), pointer, text: text_of(shape.one) });
        }
        if let Some(Value::Array(items)) = members.get(shape.many) {
            // Each one's own bytes, so that its digest does not depend on the others beside it.
            let own: Vec<&RawValue> = serde_json::from_str(text_of(shape.many)).unwrap_or_default();
            for (index, (value, text)) in items.iter().zip(own).enumerate() {
                let (pointer, name) = (format!("/{}/{index}", shape.many), format!("/{}/*", shape.many));
                found.push(Found { shape, value, pointer, name, text: text.get() });
            }
        }
    }
    found
}

/// What stands in the source beside the objects that are mapped, and says something.
fn beside(members: &Map<String, Value>, found: &[Found<'_, '_>]) -> BTreeSet<String> {
    let is_mapped = |key: &String| {
        found.iter().any(|one| one.pointer.is_empty() || *key == one.shape.one || *key == one.shape.many)
    };
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let left = members.iter().filter(|(key, value)| !is_mapped(key) && !is_empty(value));
    left.map(|(key, _)| super::printable(&format!("/{key}"))).take(super::NOT_MAPPED_MAX).collect()
}

fn several_locations(found: &[Found<'_, '_>]) -> Option<Refusal> {
    let of_shelves = found.iter().filter(|one| one.shape.of_one_location);
    let locations: BTreeSet<String> = of_shelves.filter_map(|one| Some(location(one.value)?.to_string())).collect();
    (locations.len() > 1).then(|| {
        let detail = "Tells of shelves at several locations, and a store has one: send those of this store alone";
        Refusal::Invalid(vec![fault("", "several-locations", detail)])
    })
}

/// The `location_id` of an object, or of the one object in it.
fn location(value: &Value) -> Option<&Value> {
    let own = value.get("location_id");
    own.or_else(|| value.as_object()?.values().find_map(|inner| inner.get("location_id")))
}

fn looked_for(shapes: &[Shape]) -> String {
    let names: BTreeSet<&str> = shapes.iter().flat_map(|shape| [shape.one, shape.many]).collect();
    names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", ")
}
