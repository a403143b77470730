//! The till against an agent that misbehaves in every way that the contract names, byte by byte.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use world::http::Api;
use world::receipts::ReceiptBook;
use world::sales::{Call, Document, TillScript};
use world::till::{Mode, Till, TillError};

/// What the agent does with a request.
#[derive(Clone)]
enum Reply {
    /// Hangs up.
    Nothing,
    /// Status, further headers, body.
    Answer(u16, &'static str, String),
}

/// An agent that answers by rote; the bodies that it got stay readable.
struct Agent {
    api: Api,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    async fn new(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let api = Api::new(&format!("http://{}", listener.local_addr().unwrap()));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let got = bodies.clone();
        tokio::spawn(async move {
            for reply in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let body = read(&mut stream).await;
                got.lock().unwrap().push(body);
                if let Reply::Answer(status, headers, body) = reply {
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { api, bodies }
    }

    fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

/// Reads one request and gives its body.
async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return body.to_owned();
        }
    }
}

fn receipt(seq: u64, duplicate: bool) -> String {
    format!(
        "{{\"epoch\":\"e\",\"lane\":\"trade\",\"seq\":{seq},\"digest\":\"d{seq}\",\"recorded_at\":\"2011-01-01T00:00:00Z\",\
         \"duplicate\":{duplicate},\"exceptions\":[],\"warnings\":[]}}"
    )
}

fn script(count: usize) -> TillScript {
    let document = |number| Document {
        key: format!("s/t/1/2011-01-01/{number}"),
        call: Call::Transactions,
        body: format!("{{\"sequence_number\":{number}}}"),
    };
    let [store_id, workstation_id] = ["s", "1"].map(str::to_owned);
    TillScript { store_id, workstation_id, documents: (1..=count).map(document).collect() }
}

/// Lets a till send `count` documents.
async fn sell(agent: &Agent, directory: &std::path::Path, mode: Mode, count: usize) -> Result<ReceiptBook, TillError> {
    let book = ReceiptBook::open(&directory.join("book")).unwrap();
    Till::new(agent.api.clone(), "s-1", book, mode, Arc::default()).run(&script(count)).await
}

#[tokio::test]
async fn what_was_not_appended_is_sent_again_with_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let refusals = [503, 429, 507, 500].map(|status| Reply::Answer(status, "retry-after: 0\r\n", String::new()));
    let replies = [vec![Reply::Nothing], refusals.to_vec(), vec![Reply::Answer(200, "", receipt(7, true))]].concat();
    let agent = Agent::new(replies).await;
    let book = sell(&agent, directory.path(), Mode::Single, 1).await.unwrap();
    assert_eq!(agent.bodies(), vec!["{\"sequence_number\":1}"; 6]);
    assert_eq!(book.stubs().values().map(|stub| stub.seq).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn a_till_that_starts_again_sends_only_what_its_book_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let agent =
        Agent::new(vec![Reply::Answer(201, "", receipt(1, false)), Reply::Answer(422, "", "{}".to_owned())]).await;
    let error = sell(&agent, directory.path(), Mode::Single, 2).await.unwrap_err();
    assert!(error.to_string().contains("422"), "{error}");
    let agent = Agent::new(vec![Reply::Answer(201, "", receipt(2, false))]).await;
    let book = sell(&agent, directory.path(), Mode::Single, 2).await.unwrap();
    assert_eq!(agent.bodies(), ["{\"sequence_number\":2}"]);
    assert_eq!(book.stubs().len(), 2);
}

#[tokio::test]
async fn what_is_wrong_is_not_sent_again() {
    for status in [400, 401, 403, 409, 413, 415, 422] {
        let directory = tempfile::tempdir().unwrap();
        let agent = Agent::new(vec![Reply::Answer(status, "", "{\"title\":\"no\"}".to_owned())]).await;
        let error = sell(&agent, directory.path(), Mode::Single, 1).await.unwrap_err();
        assert!(matches!(error, TillError::Refused { status: found, .. } if found == status), "{error}");
        assert_eq!(agent.bodies().len(), 1);
    }
}

#[tokio::test]
async fn many_in_one_request_get_a_receipt_each_or_stop_the_till() {
    let directory = tempfile::tempdir().unwrap();
    let one = |index: u64| format!("{{\"index\":{index},\"status\":201,\"receipt\":{}}}", receipt(index + 1, false));
    let two = format!("{{\"recorded\":2,\"duplicates\":0,\"refused\":0,\"results\":[{},{}]}}", one(0), one(1));
    let refused = "{\"recorded\":0,\"duplicates\":0,\"refused\":1,\"results\":[{\"index\":0,\"status\":422,\"problem\":{\"type\":\"x\"}}]}";
    let agent = Agent::new(vec![Reply::Answer(200, "", two), Reply::Answer(200, "", refused.to_owned())]).await;
    let error = sell(&agent, directory.path(), Mode::Batch(2), 3).await.unwrap_err();
    assert!(matches!(&error, TillError::Refused { key, .. } if key == "s/t/1/2011-01-01/3"), "{error}");
    assert_eq!(agent.bodies(), ["{\"sequence_number\":1}\n{\"sequence_number\":2}\n", "{\"sequence_number\":3}\n"]);
}
