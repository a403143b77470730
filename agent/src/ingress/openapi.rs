//! The `OpenAPI` 3.1 document: the calls of [`super::route`], the schemas of documents from the retail model, those of answers from
//! their types.
//!
//! Invariant: made of the same tables and types that serve, so that it cannot claim what is not there.

use counterfoil_proto::limits::IDENTIFIER_CHARS_MAX;
use counterfoil_proto::record::schema::INTEGER_MAX;
use counterfoil_proto::record::{Kind, json_schema};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::admit::DOCUMENTS_MAX;
use super::query::{HealthAnswer, Resolution};
use super::reply::{ManyAnswer, Problem, RETRY_AFTER_S_MAX};
use super::route::{Call, GUARDED_ANSWERS, Guard, ROUTES, Route, Shape, UNGUARDED_ANSWERS};
use super::submit::{KINDS, ManyValidations, ValidationAnswer};
use crate::answer::{DayAnswer, ExceptionAnswer, Receipt, ReceiptAnswer, Status, StockAnswer};

const DESCRIPTION: &str = "The store-edge agent's side for tills. A 200, 201 or 409 to a document means that it is on the disk, synced. \
Retry the same body on: no answer, 429, 503, 507 and other 5xx (honour Retry-After); those mean that nothing was appended, no answer \
means that nobody knows, and sending the same again is safe. Do not retry: 400, 401, 403, 409, 413, 415, 422. Every GET takes HEAD as \
well. What is not HTTP/1.1 gets 400 without a body.";

/// The document.
pub fn document() -> Value {
    // As they are written: what an answer leaves out when it is empty is not required of it.
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut documents = Map::new();
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut schemas, &mut documents);
        let method = if route.post { "post" } else { "get" };
        paths.insert(route.path.to_owned(), json!({ method: operation }));
    }
    let mut components = schemas.take_definitions(true);
    components.extend(documents);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Counterfoil agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:7360" }],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "Where `ingress.tokens_file` is configured" },
                "certificate": { "type": "mutualTLS", "description": "Where `ingress.client_ca_file` is configured" },
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut SchemaGenerator, documents: &mut Map<String, Value>) -> Value {
    let mut responses = Map::new();
    let of_guard = GUARDED_ANSWERS.iter().filter(|(status, ..)| match route.guard() {
        Guard::Nothing => false,
        Guard::Host => *status != 401,
        Guard::HostAndToken => true,
    });
    for (status, shape, description) in route.answers.iter().chain(UNGUARDED_ANSWERS).chain(of_guard) {
        responses.entry(status.to_string()).or_insert_with(|| response(*status, *shape, description, schemas));
    }
    responses.insert(
        "431".to_owned(),
        json!({ "description": "The head of the request is too large; the connection is closed" }),
    );
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": parameter_schema(name) }))
        .collect();
    for (name, required, description) in route.parameters {
        let schema = parameter_schema(name);
        parameters.push(
            json!({ "name": name, "in": "query", "required": required, "description": description, "schema": schema }),
        );
    }
    let mut operation = json!({ "summary": route.summary, "operationId": operation_id(route), "responses": responses });
    if let Some(operation) = operation.as_object_mut() {
        if let Some(body) = request_body(route.call, schemas, documents) {
            operation.insert("requestBody".to_owned(), json!({ "required": true, "content": body }));
        }
        if matches!(route.call, Call::Submit(_) | Call::Validate) {
            let description = "With a single document: the same as its `document_id`";
            let schema =
                json!({ "type": "string", "minLength": 1, "maxLength": IDENTIFIER_CHARS_MAX, "pattern": "^[!-~]+$" });
            parameters.push(json!({ "name": "Idempotency-Key", "in": "header", "required": false, "description": description, "schema": schema }));
        }
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), Value::Array(parameters));
        }
        if route.guard() == Guard::HostAndToken {
            operation.insert("security".to_owned(), json!([{}, { "token": [] }, { "certificate": [] }]));
        }
    }
    operation
}

/// An answer with its body and the headers that it always has.
fn response(status: u16, shape: Shape, description: &str, schemas: &mut SchemaGenerator) -> Value {
    let content = content(shape, schemas);
    let mut headers = Map::new();
    let mut always = |name: &str, description: &str, schema: Value| {
        headers.insert(name.to_owned(), json!({ "description": description, "required": true, "schema": schema }));
    };
    match status {
        401 => always("WWW-Authenticate", "What to send", json!({ "type": "string", "pattern": "^Bearer" })),
        429 | 503 | 507 => always(
            "Retry-After",
            "Seconds after which to send the same again",
            json!({ "type": "integer", "minimum": 1, "maximum": RETRY_AFTER_S_MAX }),
        ),
        _ => {}
    }
    let mut answer = json!({ "description": description });
    if let Some(answer) = answer.as_object_mut() {
        if let Some((content_type, schema)) = content {
            answer.insert("content".to_owned(), json!({ content_type: { "schema": schema } }));
        }
        if !headers.is_empty() {
            answer.insert("headers".to_owned(), Value::Object(headers));
        }
    }
    answer
}

/// What a parameter of a path or a query may hold, with an example that fits those of the README.
fn parameter_schema(name: &str) -> Value {
    match name {
        "business_day_date" => json!({ "type": "string", "format": "date", "examples": ["2026-11-23"] }),
        "sequence_number" => json!({ "type": "integer", "minimum": 0, "maximum": INTEGER_MAX, "examples": [1] }),
        "sequence_epoch" => json!({ "type": "integer", "minimum": 0, "maximum": INTEGER_MAX, "examples": [0] }),
        "id" => json!({ "type": "string", "pattern": "^ex-[0-9a-f]{16}$" }),
        "kind" => json!({ "type": "string", "enum": KINDS.map(Kind::name), "default": Kind::TRANSACTION.name() }),
        "all" => json!({ "type": "boolean", "default": false }),
        "item_id" => identifier("85123A"),
        "workstation_id" => identifier("1"),
        _ => identifier("count-1"),
    }
}

fn identifier(example: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": IDENTIFIER_CHARS_MAX, "examples": [example] })
}

fn operation_id(route: &Route) -> String {
    let method = if route.post { "post" } else { "get" };
    let words = route.path.split(['/', '{', '}', '-', '.', '_']).filter(|word| !word.is_empty() && *word != "v1");
    words.fold(method.to_owned(), |id, word| {
        let (first, rest) = word.split_at(1);
        id + &first.to_ascii_uppercase() + rest
    })
}

/// `None` where there is no body.
fn content(shape: Shape, schemas: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
    let json = "application/json";
    Some(match shape {
        Shape::Receipt => (json, schemas.subschema_for::<Receipt>().to_value()),
        Shape::ReceiptOrMany => {
            (json, any_of([schemas.subschema_for::<Receipt>(), schemas.subschema_for::<ManyAnswer>()]))
        }
        Shape::Validation => {
            (json, any_of([schemas.subschema_for::<ValidationAnswer>(), schemas.subschema_for::<ManyValidations>()]))
        }
        Shape::Stock => (json, schemas.subschema_for::<StockAnswer>().to_value()),
        Shape::ReceiptProgress => (json, schemas.subschema_for::<ReceiptAnswer>().to_value()),
        Shape::Day => (json, schemas.subschema_for::<DayAnswer>().to_value()),
        Shape::Exceptions => (json, schemas.subschema_for::<Vec<ExceptionAnswer>>().to_value()),
        Shape::Exception => (json, schemas.subschema_for::<ExceptionAnswer>().to_value()),
        Shape::Status => (json, schemas.subschema_for::<Status>().to_value()),
        Shape::Health => (json, schemas.subschema_for::<HealthAnswer>().to_value()),
        Shape::Text => ("text/plain", json!({ "type": "string" })),
        Shape::Json => (json, json!({ "type": "object" })),
        Shape::Problem => ("application/problem+json", schemas.subschema_for::<Problem>().to_value()),
        Shape::Page(content_type) => (content_type, json!({ "type": "string" })),
        Shape::Nothing => return None,
    })
}

fn any_of(schemas: [schemars::Schema; 2]) -> Value {
    json!({ "anyOf": schemas.map(schemars::Schema::to_value) })
}

fn request_body(call: Call, schemas: &mut SchemaGenerator, documents: &mut Map<String, Value>) -> Option<Value> {
    let one = match call {
        Call::Submit(kind) => document_schema(kind, documents),
        Call::Ingest => {
            let json = json!({ "type": "object", "description": "Of a profile that is JSON: one object of the system, under its name or not, or a list under theirs (order, orders; refunds; counts …)" });
            let xml = json!({ "type": "string", "description": "POSLog, in UTF-8; transactions of any number up to the bound of documents" });
            return Some(json!({
                "application/json": { "schema": json }, "application/xml": { "schema": xml }, "text/xml": { "schema": xml },
            }));
        }
        Call::Validate => json!({ "type": "object" }),
        Call::Change(_) => {
            let resolution = schemas.subschema_for::<Resolution>().to_value();
            return Some(json!({ "application/json": { "schema": resolution } }));
        }
        Call::Stock
        | Call::Receipt
        | Call::ReceiptOfDocument
        | Call::Day
        | Call::Exceptions
        | Call::Status
        | Call::Healthz
        | Call::Readyz
        | Call::Metrics
        | Call::OpenApi
        | Call::Page(_) => return None,
    };
    let many = json!({ "type": "array", "maxItems": DOCUMENTS_MAX, "items": one });
    let lines = format!("One document per line, up to {DOCUMENTS_MAX}");
    Some(json!({
        "application/json": { "schema": { "oneOf": [one, many] } },
        "application/x-ndjson": { "schema": { "type": "string", "description": lines } },
    }))
}

/// A reference to the document's schema, which is put among the components with its definitions beside it.
fn document_schema(kind: Kind, documents: &mut Map<String, Value>) -> Value {
    let (Some(name), Some(mut schema)) = (kind.name(), json_schema(kind)) else {
        return json!({ "type": "object" });
    };
    let name = format!("{name}_document");
    let definitions = schema.as_object_mut().and_then(|schema| schema.remove("$defs"));
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
    }
    relocate(&mut schema, &name);
    if let Some(Value::Object(definitions)) = definitions {
        for (inner, mut definition) in definitions {
            relocate(&mut definition, &name);
            documents.insert(format!("{name}.{inner}"), definition);
        }
    }
    documents.insert(name.clone(), schema);
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// References to `#/$defs/x` become references to the component that x is put at.
fn relocate(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(entries) => {
            if let Some(Value::String(reference)) = entries.get_mut("$ref")
                && let Some(inner) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/components/schemas/{name}.{inner}");
            }
            entries.values_mut().for_each(|value| relocate(value, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
