//! The published JSON Schema and the check say the same, because they are made of one table; a small evaluator of the keywords
//! that are used proves it on documents that were bent at random.

use proptest::prelude::*;

use super::*;
use crate::record::schema::{Table, Type, table_of};

pub(super) const KINDS: &[Kind] =
    &[Kind::TRANSACTION, Kind::STOCK_MOVEMENT, Kind::FULFILLMENT_UPDATE, Kind::TENDER_CONTROL, Kind::DAY_CLOSE];

fn example(kind: Kind) -> Value {
    match kind {
        Kind::STOCK_MOVEMENT => movement(),
        Kind::FULFILLMENT_UPDATE => fulfillment(),
        Kind::TENDER_CONTROL => tender_control(),
        Kind::DAY_CLOSE => close(),
        _ => exchange(),
    }
}

fn is_valid(schema: &Value, value: &Value) -> bool {
    let number = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let fits = |length: usize, min: &str, max: &str| {
        let length = u64::try_from(length).unwrap();
        number(min).is_none_or(|min| length >= min) && number(max).is_none_or(|max| length <= max)
    };
    let has_type = |name: &str| match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "integer" && (number.is_u64() || number.is_i64()),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    };
    let types = match schema.get("type") {
        None => true,
        Some(Value::String(name)) => has_type(name),
        Some(names) => names.as_array().unwrap().iter().any(|name| has_type(name.as_str().unwrap())),
    };
    let of_value = match value {
        Value::String(text) => fits(text.chars().count(), "minLength", "maxLength"),
        Value::Number(found) => {
            let within = |found: u64| number("maximum").is_none_or(|max| found <= max);
            number("minimum").is_none_or(|_| found.as_u64().is_some_and(within))
        }
        Value::Array(items) => {
            let valid = |item: &Value| schema.get("items").is_none_or(|schema| is_valid(schema, item));
            fits(items.len(), "minItems", "maxItems") && items.iter().all(valid)
        }
        Value::Object(members) => {
            let valid = |(name, value): (&String, &Value)| {
                let property = schema.get("properties").and_then(|properties| properties.get(name));
                property.or(schema.get("additionalProperties")).is_none_or(|schema| is_valid(schema, value))
            };
            let required = schema.get("required").and_then(Value::as_array);
            let has = |name: &Value| members.contains_key(name.as_str().unwrap());
            required.is_none_or(|names| names.iter().all(has))
                && fits(members.len(), "minProperties", "maxProperties")
                && members.iter().all(valid)
        }
        Value::Null | Value::Bool(_) => true,
    };
    let schemas = |keyword: &str| schema.get(keyword).and_then(Value::as_array).cloned();
    let condition = schema.get("if").is_none_or(|condition| {
        !is_valid(condition, value) || schema.get("then").is_none_or(|schema| is_valid(schema, value))
    });
    types
        && of_value
        && condition
        && schema.get("enum").is_none_or(|values| values.as_array().unwrap().contains(value))
        && schemas("anyOf").is_none_or(|schemas| schemas.iter().any(|schema| is_valid(schema, value)))
        && schemas("allOf").is_none_or(|schemas| schemas.iter().all(|schema| is_valid(schema, value)))
}

#[test]
fn a_schema_is_published_for_each_kind_that_tills_send() {
    for &kind in KINDS {
        let schema = json_schema(kind).unwrap();
        assert_eq!(schema.get("$schema").unwrap(), "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema.get("title").and_then(Value::as_str), kind.name());
        assert!(is_valid(&schema, &example(kind)));
    }
    assert_eq!(json_schema(Kind::EPOCH_START), None);
}

fn each_table(table: &'static Table, visit: &mut dyn FnMut(&'static Table)) {
    visit(table);
    for field in table.fields {
        if let Type::Object(inner) | Type::List(inner, _) = field.holds {
            each_table(inner, visit);
        }
    }
}

#[test]
fn tables_fit_the_walk_and_every_field_is_explained() {
    for &kind in KINDS {
        each_table(table_of(kind).unwrap(), &mut |table| {
            assert!(table.fields.len() <= 64, "{}", table.title);
            for (index, field) in table.fields.iter().enumerate() {
                assert!(field.doc.ends_with(['.', '…']) && !field.doc.contains("  "), "{}.{}", table.title, field.name);
                assert!(table.fields.iter().skip(index + 1).all(|other| other.name != field.name), "{}", field.name);
            }
        });
    }
}

fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => return,
    };
    for (name, value) in members {
        let pointer = alloc::format!("{at}/{name}");
        pointers(value, &pointer, found);
        found.push(pointer);
    }
}

/// What a schema can say; the rest (decimals, dates, currencies, equal keys) it says by patterns that are not evaluated here.
const STRUCTURAL: &[&str] =
    &["missing-field", "wrong-type", "number-not-string", "invalid-value", "too-many-items", "too-long"];

proptest! {
    #[test]
    fn schema_and_check_agree_on_bent_documents(
        kind in prop::sample::select(KINDS),
        bends in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12), 1..4),
    ) {
        let mut document = example(kind);
        for (place, how) in bends {
            let mut places = Vec::new();
            pointers(&document, "", &mut places);
            if places.is_empty() { break; }
            let pointer = places.get(place.index(places.len())).unwrap().clone();
            let values = [
                Value::Null, json!(1), json!(-1), json!(1.5), json!("x"), json!("4.49"), json!("sale"), json!(true), json!([]),
                json!({}), json!("x".repeat(2_000)), json!(["x"]),
            ];
            let value = values.get(how).unwrap().clone();
            // A null inside a list is a wrong item, elsewhere it removes the field or stays as a null.
            let parent_is_list = document.pointer(pointer.rsplit_once('/').unwrap().0).is_some_and(Value::is_array);
            if value.is_null() && !parent_is_list && place.index(2) == 0 {
                *document.pointer_mut(&pointer).unwrap() = Value::Null;
            } else {
                document = with(document, &pointer, value);
            }
        }
        let valid = is_valid(&json_schema(kind).unwrap(), &document);
        match prepare_in(&context(), kind, &document) {
            Ok(_) => prop_assert!(valid, "accepted, but the schema refuses {document}"),
            Err(Refusal::Invalid(faults)) => {
                let structural = faults.iter().find(|fault| STRUCTURAL.contains(&fault.problem));
                prop_assert!(!valid || structural.is_none(), "refused for {structural:?}, but the schema takes {document}");
            }
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}
