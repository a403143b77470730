//! What each call answers.

use super::*;

#[tokio::test]
async fn a_sale_is_recorded_once_and_a_conflict_is_kept() {
    let served = serve_with_owner(config()).await;
    let first = served.post("/v1/transactions", &sale(1)).await;
    assert_eq!((first.status, first.header("content-type")), (201, "application/json"), "{first:?}");
    let receipt = first.json();
    assert_eq!((&receipt["seq"], &receipt["lane"], &receipt["duplicate"]), (&1.into(), &"trade".into(), &false.into()));
    let again = served.post("/v1/transactions", &sale(1).replace(",\"", ", \"")).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &true.into()));
    assert_eq!(again.json()["digest"], receipt["digest"]);
    let other = served.post("/v1/transactions", &sale(1).replace("8.98", "9.98")).await;
    other.is_problem(409, "identity-conflict");
    let other = other.json();
    assert_eq!(other["existing"]["seq"], 1);
    assert_eq!(other["exception_id"], "ex-0011223344556677");
    assert!(other["kept"]["seq"].is_u64());
}

#[tokio::test]
async fn a_document_that_cannot_be_identified_is_refused_with_every_fault() {
    let served = serve_with_owner(config()).await;
    let answer = served.post("/v1/transactions", "{\"type\":\"secret-value\",\"line_items\":7}").await;
    answer.is_problem(422, "invalid-document");
    let faults = answer.json()["faults"].as_array().unwrap().clone();
    assert!(faults.len() > 2, "{answer:?}");
    for fault in &faults {
        assert!(fault["type"].as_str().unwrap().starts_with("https://counterfoil.dev/problems/"), "{fault}");
        assert!(fault["pointer"].is_string() && fault["detail"].is_string(), "{fault}");
    }
    assert!(!String::from_utf8(answer.body).unwrap().contains("secret-value"));
    for unreadable in ["", "nonsense", "{\"a\":", "7", "\u{feff}"] {
        served.post("/v1/transactions", unreadable).await.is_problem(400, "unreadable-document");
    }
    served.post("/v1/transactions", "[{}").await.is_problem(400, "unreadable-body");
    assert!(served.refusals.counts().values().sum::<u64>() >= 7);
    assert_eq!(served.refusals.counts()["unreadable-body"], 1);
}

#[tokio::test]
async fn many_documents_are_each_answered_in_their_order() {
    let served = serve_with_owner(config()).await;
    served.post("/v1/transactions", &sale(1)).await;
    let body = format!("[{},{},{{}},{},{}]", sale(1), sale(2), sale(1).replace("8.98", "1.00"), sale(2));
    let answer = served.post("/v1/transactions", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let counts = ["recorded", "duplicates", "refused", "conflicts"].map(|name| answer[name].as_u64().unwrap());
    assert_eq!(counts, [1, 2, 1, 1]);
    let statuses: Vec<u64> =
        answer["results"].as_array().unwrap().iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 201, 422, 409, 200]);
    for (index, result) in answer["results"].as_array().unwrap().iter().enumerate() {
        assert_eq!(result["index"], index);
        assert_eq!(result.get("receipt").is_some(), result["status"].as_u64().unwrap() < 300);
        assert_eq!(result.get("problem").is_some(), result["status"].as_u64().unwrap() >= 300);
    }
    assert_eq!(answer["results"][3]["problem"]["existing"]["seq"], 1);
    let lines = format!("{}\n\nnonsense\n{}\n", sale(3), sale(4));
    let answer = served.call("POST", "/v1/transactions", NDJSON, &lines).await.json();
    assert_eq!((&answer["recorded"], &answer["refused"]), (&2.into(), &1.into()));
    assert_eq!((&answer["results"][1]["status"], &answer["results"][2]["status"]), (&400.into(), &201.into()));
    let thousand: String = (100..1_100).map(|number| sale(number) + "\n").collect();
    let answer = served.call("POST", "/v1/transactions", NDJSON, &thousand).await.json();
    assert_eq!((&answer["recorded"], answer["results"].as_array().unwrap().len()), (&1_000.into(), 1_000));
    let empty = served.post("/v1/transactions", "[]").await;
    assert_eq!((empty.status, &empty.json()["recorded"]), (200, &0.into()));
}

#[tokio::test]
async fn the_key_of_a_single_document_is_its_document_id() {
    let served = serve_with_owner(config()).await;
    let movement = "{\"type\":\"receipt\",\"occurred_at\":\"2026-11-23T10:15:40Z\",\"lines\":[{\"line\":1,\"item_id\":\"85123A\",\"quantity\":\"5\",\"unit\":\"EA\"}]}";
    let answer = served.post("/v1/stock-movements", movement).await;
    answer.is_problem(422, "invalid-document");
    let key = format!("{JSON}idempotency-key: m-1\r\n");
    let keyed = served.call("POST", "/v1/transactions", &key, &sale(1)).await;
    assert_eq!(keyed.status, 201, "{keyed:?}");
    assert_eq!(served.get("/v1/receipts?document_id=m-1").await.json()["seq"], 1);
    served.call("POST", "/v1/transactions", &key, &format!("[{}]", sale(1))).await.is_problem(400, "bad-request");
    let two = format!("{key}idempotency-key: m-2\r\n");
    served.call("POST", "/v1/transactions", &two, &sale(1)).await.is_problem(400, "bad-request");
}

#[tokio::test]
async fn validation_lists_faults_and_flags_and_records_nothing() {
    let served = serve_with_owner(config()).await;
    let good = served.post("/v1/validate", &sale(1)).await;
    assert_eq!(good.status, 200, "{good:?}");
    let good = good.json();
    assert_eq!((&good["recordable"], &good["status"]), (&true.into(), &201.into()));
    assert_eq!(good["digest"].as_str().unwrap().len(), 64);
    assert_eq!(good["flags"][0]["code"], "LATE_AFTER_CLOSE", "the owner was asked: {good}");
    let flagged = sale(1).replace("\"gross\":\"8.98\"", "\"gross\":\"7.98\",\"odd\":1");
    let flagged = served.post("/v1/validate?kind=transaction", &flagged).await.json();
    assert_eq!(flagged["recordable"], true);
    let codes: Vec<&str> =
        flagged["flags"].as_array().unwrap().iter().map(|flag| flag["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"TOTALS_MISMATCH"), "{flagged}");
    assert!(flagged["flags"][0]["message"].as_str().unwrap().len() > 10);
    assert!(!flagged["warnings"].as_array().unwrap().is_empty(), "{flagged}");
    let many = served.post("/v1/validate", &format!("[{},{{}}]", sale(1))).await.json();
    assert_eq!((&many["results"][1]["index"], &many["results"][1]["status"]), (&1.into(), &422.into()));
    assert!(!many["results"][1]["faults"].as_array().unwrap().is_empty());
    let day = served.post("/v1/validate?kind=day_close", "{}").await.json();
    assert_eq!((&day["recordable"], &day["status"]), (&false.into(), &422.into()));
    for query in ["kind=epoch_start", "kind=x", "kid=transaction", "kind=transaction&kind=day_close", "kind=%ff"] {
        served.post(&format!("/v1/validate?{query}"), &sale(1)).await.is_problem(400, "bad-request");
    }
    let known = served.post("/v1/transactions", &sale(1)).await;
    assert_eq!((known.status, &known.json()["seq"]), (201, &1.into()), "nothing had been recorded");
    let again = served.post("/v1/validate", &sale(1)).await.json();
    assert_eq!(
        (&again["recordable"], &again["status"], &again["flags"]),
        (&true.into(), &200.into(), &Value::Array(vec![]))
    );
    let other = served.post("/v1/validate", &sale(1).replace("8.98", "7.98")).await.json();
    assert_eq!((&other["status"], other["flags"].to_string().contains("IDENTITY_CONFLICT")), (&409.into(), true));
}

#[tokio::test]
async fn reads_answer_what_the_owner_knows() {
    let served = serve_with_owner(config()).await;
    served.post("/v1/transactions", &sale(7)).await;
    let stock = served.get("/v1/stock/85123A%2Fx").await;
    assert_eq!((stock.status, &stock.json()["on_hand"], &stock.json()["delta"]), (200, &Value::Null, &"-2".into()));
    served.get("/v1/stock/none").await.is_problem(404, "unknown-item");
    let receipt = served.get("/v1/receipts/3/2026-11-23/7").await;
    assert_eq!(
        (receipt.status, &receipt.json()["progress"], &receipt.json()["seq"]),
        (200, &"stored".into(), &1.into())
    );
    served.get("/v1/receipts/3/2026-11-23/7?sequence_epoch=1").await.is_problem(404, "unknown-receipt");
    served.get("/v1/receipts/3/2026-11-23/seven").await.is_problem(400, "bad-request");
    served.get("/v1/receipts/3/23.11.2026/7").await.is_problem(400, "bad-request");
    served.get("/v1/receipts").await.is_problem(400, "bad-request");
    served.get("/v1/receipts?document_id=none").await.is_problem(404, "unknown-receipt");
    assert_eq!(served.get("/v1/days/2026-11-23").await.json()["business_day_date"], "2026-11-23");
    served.get("/v1/days/2026-02-30").await.is_problem(400, "bad-request");
    assert_eq!(served.get("/v1/exceptions").await.json().as_array().unwrap().len(), 1);
    assert_eq!(served.get("/v1/exceptions?all=true").await.json().as_array().unwrap().len(), 2);
    served.get("/v1/exceptions?all=maybe").await.is_problem(400, "bad-request");
    assert_eq!(served.get("/v1/status").await.json()["mode"], "accepting");
}

#[tokio::test]
async fn the_page_needs_no_token_and_a_known_host() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "till1 0123456789abcdef\n").unwrap();
    let tokens = Some(grant::read(file.path()).unwrap());
    let served = serve_with_owner(IngressConfig { tokens, ..config() }).await;
    for (path, content_type) in [("/", "text/html"), ("/app.css", "text/css"), ("/app.js", "text/javascript")] {
        let file = served.get(path).await;
        assert_eq!((file.status, file.header("content-type")), (200, &*format!("{content_type}; charset=utf-8")));
        assert!(file.header("content-security-policy").starts_with("default-src 'none'"), "{file:?}");
        let has = format!("if-none-match: {}\r\n", file.header("etag"));
        let again = served.call("GET", path, &has, "").await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        let mut socket = served.connect().await;
        let foreign = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n");
        socket.write_all(foreign.as_bytes()).await.unwrap();
        answered(&mut socket, "GET", path).await.is_problem(403, "host-not-allowed");
    }
    served.get("/v1/status").await.is_problem(401, "token-missing");
}

#[tokio::test]
async fn an_exception_is_resolved_by_somebody_for_a_reason() {
    let served = serve_with_owner(config()).await;
    let path = "/v1/exceptions/ex-0011223344556677/resolve";
    let resolved = served.post(path, "{\"by\":\"Ada\",\"reason\":\"counted again\"}").await;
    assert_eq!(
        (resolved.status, &resolved.json()["state"], &resolved.json()["resolved_by"]),
        (200, &"resolved".into(), &"Ada".into())
    );
    served
        .post("/v1/exceptions/ex-none/resolve", "{\"by\":\"Ada\",\"reason\":\"r\"}")
        .await
        .is_problem(404, "unknown-exception");
    for (call, state) in [("acknowledge", "acknowledged"), ("waive", "waived")] {
        let path = format!("/v1/exceptions/ex-0011223344556677/{call}");
        let changed = served.post(&path, "{\"by\":\"Ada\",\"reason\":\"r\"}").await;
        assert_eq!((changed.status, &changed.json()["state"]), (200, &state.into()));
    }
    let faulty = served.post(path, "{\"by\":\" \",\"reason\":\"\"}").await;
    faulty.is_problem(422, "invalid-document");
    assert_eq!(faulty.json()["faults"].as_array().unwrap().len(), 2);
    served.post(path, "{\"by\":\"Ada\"}").await.is_problem(422, "invalid-document");
    served.post(path, "{").await.is_problem(400, "unreadable-body");
    served.call("POST", path, NDJSON, "{}").await.is_problem(415, "content-type-not-supported");
    served.post(path, &" ".repeat(17 * 1024)).await.is_problem(413, "body-too-large");
}

#[tokio::test]
async fn what_is_not_there_is_said_as_a_problem() {
    let served = serve_with_owner(config()).await;
    served.get("/v1/nothing").await.is_problem(404, "not-found");
    served.get("/v1/nothing/nothing").await.is_problem(404, "not-found");
    let wrong = served.get("/v1/transactions").await;
    wrong.is_problem(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), "POST");
    let wrong = served.call("DELETE", "/v1/status", "", "").await;
    wrong.is_problem(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn foreign_hosts_and_types_do_not_come_in() {
    let served = serve_with_owner(config()).await;
    for path in ["/v1/status", "/metrics", "/v1/nothing"] {
        let mut socket = served.connect().await;
        socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_answer(&mut socket).await.unwrap();
        answer.is_problem(403, "host-not-allowed");
    }
    let text = "content-type: text/plain\r\n";
    served.call("POST", "/v1/transactions", text, &sale(1)).await.is_problem(415, "content-type-not-supported");
    served.call("POST", "/v1/transactions", "", &sale(1)).await.is_problem(415, "content-type-not-supported");
    let gzip = format!("{JSON}content-encoding: gzip\r\n");
    served.call("POST", "/v1/validate", &gzip, &sale(1)).await.is_problem(415, "content-encoding-not-supported");
}

#[tokio::test]
async fn without_a_known_token_only_health_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "till1 0123456789abcdef\n").unwrap();
    let tokens = Some(grant::read(file.path()).unwrap());
    let served = serve_with_owner(IngressConfig { tokens, ..config() }).await;
    let missing = served.post("/v1/transactions", &sale(1)).await;
    missing.is_problem(401, "token-missing");
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"counterfoil\"");
    let with = |token: &str| format!("{JSON}authorization: Bearer {token}\r\n");
    served.call("POST", "/v1/transactions", &with("0123456789abcdeF"), &sale(1)).await.is_problem(401, "token-unknown");
    served.get("/metrics").await.is_problem(401, "token-missing");
    served.get("/openapi.json").await.is_problem(401, "token-missing");
    assert_eq!(served.call("POST", "/v1/transactions", &with("0123456789abcdef"), &sale(1)).await.status, 201);
    assert_eq!(served.get("/healthz").await.status, 200);
    assert_eq!(served.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn readiness_follows_the_status_and_liveness_the_owner() {
    let mut served = serve(config()).await;
    let inbox = served.inbox.take().unwrap();
    assert_eq!(served.get("/readyz").await.json()["mode"], "accepting");
    inbox.status.send_replace(Arc::new(Status { mode: "drain_only".into(), ..Status::default() }));
    let answer = served.get("/readyz").await;
    answer.is_problem(503, "not-ready");
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(served.get("/healthz").await.status, 200);
    drop(inbox);
    served.get("/healthz").await.is_problem(503, "stopping");
    let answer = served.post("/v1/transactions", &sale(1)).await;
    answer.is_problem(503, "stopping");
}

#[tokio::test]
async fn metrics_name_every_family_with_help_and_type() {
    let served = serve_with_owner(config()).await;
    served.post("/v1/transactions", "{}").await;
    let answer = served.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("counterfoil_http_responses_total{route=\"/v1/transactions\",status=\"422\"} 1\n"), "{text}");
    assert!(text.contains("counterfoil_http_requests_refused_total{problem=\"missing-field\"} 1\n"), "{text}");
    assert!(text.contains("counterfoil_info{version=\"\",store_id=\"0042\",agent_id=\"\","), "{text}");
    for name in ["files_taken_total", "files_refused_total", "documents_total", "files_renamed_total", "files_waiting"]
    {
        assert!(text.contains(&format!("\ncounterfoil_spool_{name} 0\n")), "{name}: {text}");
    }
    let mut family = "";
    for line in text.lines() {
        match line.strip_prefix("# HELP ") {
            Some(help) => family = help.split_once(' ').unwrap().0,
            None if line.starts_with("# TYPE ") => assert!(line.starts_with(&format!("# TYPE {family} ")), "{line}"),
            None => assert!(line.starts_with(family), "{line} after {family}"),
        }
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_a_problem_like_any_other() {
    let served = serve_with_owner(config()).await;
    served.get("/v1/stock/%ff").await.is_problem(400, "bad-request");
    served.post("/v1/exceptions/%ff/resolve", "{}").await.is_problem(400, "bad-request");
}

#[tokio::test]
async fn the_description_lists_each_call_and_every_reference_leads_somewhere() {
    let served = serve_with_owner(config()).await;
    let document = served.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["paths"].as_object().unwrap().len(), route::ROUTES.len());
    for name in
        ["transaction_document", "stock_movement_document", "day_close_document", "Receipt", "Problem", "Status"]
    {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    check_references(&document, &document);
}

fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(entries) => {
            if let Some(Value::String(reference)) = entries.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference}"));
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            entries.values().for_each(|value| check_references(value, document));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, document)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn documents_of_other_systems_go_the_way_of_everybodys() {
    const XML: &str = "Content-Type: text/xml; charset=utf-8\r\n";
    let served = serve_with_owner(config()).await;
    let sale = |number: u64| {
        format!(
            "<Transaction><WorkstationID>3</WorkstationID><SequenceNumber>{number}</SequenceNumber><BusinessDayDate>2026-11-23</BusinessDayDate>\
             <EndDateTime>2026-11-23T10:15:40</EndDateTime><CurrencyCode>EUR</CurrencyCode><Odd>secret-value</Odd><RetailTransaction><LineItem>\
             <SequenceNumber>1</SequenceNumber><Sale><ItemID>a</ItemID><ExtendedAmount>1.00</ExtendedAmount><Quantity>1</Quantity></Sale></LineItem>\
             <Total TotalType=\"TransactionGrandAmount\">1.00</Total></RetailTransaction></Transaction>"
        )
    };
    let path = "/v1/ingest/poslog-6";
    let one = served.call("POST", path, XML, &format!("<POSLog>{}</POSLog>", sale(1))).await;
    assert_eq!(one.status, 201, "{one:?}");
    assert_eq!(one.json()["warnings"], serde_json::json!(["not mapped: /Odd"]));
    let many = served.call("POST", path, XML, &format!("<POSLog>{}{}<Transaction/></POSLog>", sale(1), sale(2))).await;
    let many = many.json();
    let counts = ["recorded", "duplicates", "refused"].map(|name| many[name].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 1], "{many}");
    let other = sale(2).replace("1.00", "2.00");
    served.call("POST", path, XML, &other).await.is_problem(409, "identity-conflict");
    let unknown = served.call("POST", "/v1/ingest/nobody", XML, "<POSLog/>").await;
    unknown.is_problem(404, "unknown-profile");
    let detail = unknown.json()["detail"].to_string();
    for known in ["square", "shopify", "ncr-2.1", "poslog-6"] {
        assert!(detail.contains(known), "{detail}");
    }
    served.call("POST", "/v1/ingest/square", XML, "{}").await.is_problem(415, "content-type-not-supported");
    served.post(path, "{}").await.is_problem(415, "content-type-not-supported");
    served.call("POST", path, XML, "<POSLog/>").await.is_problem(400, "unreadable-body");
    served.call("POST", path, XML, "<POSLog><Transaction>").await.is_problem(400, "unreadable-document");
    let nothing = served.post("/v1/ingest/square", "{\"id\":\"secret-value\"}").await;
    nothing.is_problem(422, "invalid-document");
    let looked_for = nothing.json()["faults"][0]["detail"].to_string();
    assert!(looked_for.contains("order"), "{looked_for}");
    let invalid = served.post("/v1/ingest/square", "{\"order\":{\"id\":\"secret-value\"}}").await;
    invalid.is_problem(422, "invalid-document");
    assert_eq!(invalid.json()["faults"][0]["pointer"], "/order/total_money");
    assert!(!String::from_utf8(invalid.body).unwrap().contains("secret-value"));
    let many = format!("<POSLog>{}</POSLog>", "<Transaction/>".repeat(1_001));
    served.call("POST", path, XML, &many).await.is_problem(413, "too-many-documents");
    assert_eq!(served.refusals.counts()["unknown-profile"], 1);
}
