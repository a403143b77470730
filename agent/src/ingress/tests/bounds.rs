//! What happens at each bound: bodies, times, connections, the queue, a stop.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

fn short(limit: fn(&mut IngressConfig) -> &mut Duration) -> IngressConfig {
    let mut config = config();
    *limit(&mut config) = Duration::from_millis(200);
    config
}

/// Whether the peer closes without a byte more.
async fn is_closed(socket: &mut TcpStream) -> bool {
    let read = timeout(AT_MOST, socket.read_u8()).await.expect("closed in time");
    read.is_err()
}

fn head(length: usize) -> String {
    format!("POST /v1/transactions HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_head_that_dribbles_is_cut_and_so_is_an_idle_connection() {
    let served = serve_with_owner(short(|config| &mut config.header_timeout)).await;
    let mut socket = served.connect().await;
    let (mut read, mut write) = socket.split();
    let dribble = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        read = timeout(AT_MOST, read.read_u8()) => assert!(read.expect("cut in time").is_err()),
        () = dribble => {}
    }
    // The idle one outlives that limit, and is cut by its own.
    let served = serve_with_owner(short(|config| &mut config.idle_timeout)).await;
    let mut socket = served.connect().await;
    assert!(is_closed(&mut socket).await);
    let mut socket = served.connect().await;
    socket.write_all(&request("GET", "/healthz", "", "")).await.unwrap();
    assert_eq!(answered(&mut socket, "GET", "/healthz").await.status, 200);
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn a_body_that_dribbles_is_told_to_come_again() {
    let served = serve_with_owner(short(|config| &mut config.body_timeout)).await;
    let mut socket = served.connect().await;
    socket.write_all(format!("{}{{", head(100)).as_bytes()).await.unwrap();
    let answer = answered(&mut socket, "POST", "/v1/transactions").await;
    answer.is_problem(503, "slow-body");
    assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"));
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn who_does_not_read_the_answers_is_cut() {
    let served = serve_with_owner(short(|config| &mut config.body_timeout)).await;
    let mut socket = served.connect().await;
    let requests = request("GET", "/openapi.json", "", "").repeat(1_000);
    // Writing stalls when the server stops reading, and fails when it has cut the connection.
    let cut = timeout(AT_MOST, async { while socket.write_all(&requests).await.is_ok() {} }).await;
    assert!(cut.is_ok());
    assert_eq!(served.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn what_is_too_large_is_refused_however_it_comes() {
    let served = serve_with_owner(config()).await;
    let body = " ".repeat((4 << 20) + 1);
    served.post("/v1/transactions", &body).await.is_problem(413, "body-too-large");
    let mut socket = served.connect().await;
    let chunked =
        format!("POST /v1/transactions HTTP/1.1\r\nhost: localhost\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
    socket.write_all(chunked.as_bytes()).await.unwrap();
    socket.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    answered(&mut socket, "POST", "/v1/transactions").await.is_problem(413, "body-too-large");
    // Who asks for leave is answered without having sent a byte.
    let mut socket = served.connect().await;
    let head = head(5 << 20).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    answered(&mut socket, "POST", "/v1/transactions").await.is_problem(413, "body-too-large");
    let padded = sale(1).replacen('{', &format!("{{\"pad\":\"{}\",", "x".repeat(1 << 20)), 1);
    served.post("/v1/transactions", &padded).await.is_problem(413, "document-too-large");
    let many = format!("[{}0]", "0,".repeat(1_000));
    served.post("/v1/transactions", &many).await.is_problem(413, "too-many-documents");
    let mut socket = served.connect().await;
    socket.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
    let long = format!("x-long: {}\r\n\r\n", "x".repeat(admit::HEAD_BYTES_MAX));
    socket.write_all(long.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut socket).await.unwrap().status, 431);
}

#[tokio::test]
async fn a_full_queue_a_full_journal_and_an_owner_that_vanishes() {
    let mut served = serve(IngressConfig { queue_max: 1, ..config() }).await;
    let mut inbox = served.inbox.take().unwrap();
    let mut waiting = served.connect().await;
    waiting.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    while inbox.requests.is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        let busy = served.post("/v1/transactions", &sale(2)).await;
        busy.is_problem(503, "busy");
        assert_eq!(busy.header("retry-after"), "1");
    }
    served.get("/v1/exceptions").await.is_problem(503, "busy");
    served.post("/v1/validate", &sale(2)).await.is_problem(503, "busy");
    let Some(Asked::Submit { documents, reply }) = inbox.requests.recv().await else { panic!("a submission") };
    assert_eq!(documents.len(), 1);
    reply.send(Err(Refused::Full)).unwrap();
    let full = answered(&mut waiting, "POST", "/v1/transactions").await;
    full.is_problem(507, "journal-full");
    assert_eq!(full.header("retry-after"), "30");
    // Nobody knows what became of it: no byte is answered.
    waiting.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    drop(inbox.requests.recv().await);
    assert!(is_closed(&mut waiting).await);
}

#[tokio::test]
async fn a_connection_carries_many_requests_and_the_answers_keep_their_order() {
    let served = serve_with_owner(config()).await;
    let mut socket = served.connect().await;
    let pipelined: Vec<u8> =
        (1..=3).flat_map(|number| request("POST", "/v1/transactions", JSON, &sale(number))).collect();
    socket.write_all(&pipelined).await.unwrap();
    for number in 1..=3 {
        assert_eq!(answered(&mut socket, "POST", "/v1/transactions").await.json()["seq"], number);
    }
}

#[tokio::test]
async fn when_all_connections_are_answering_the_next_is_told_to_come_again() {
    let mut served = serve(IngressConfig { connections_max: 16, ..config() }).await;
    let mut inbox = served.inbox.take().unwrap();
    let mut waiting = Vec::new();
    let mut asked = Vec::new();
    for number in 0..16 {
        let mut socket = served.connect().await;
        socket.write_all(&request("POST", "/v1/transactions", JSON, &sale(number))).await.unwrap();
        asked.push(inbox.requests.recv().await.unwrap());
        waiting.push(socket);
    }
    for _ in 0..3 {
        let turned_away = served.post("/v1/transactions", &sale(99)).await;
        turned_away.is_problem(503, "busy");
        assert_eq!(turned_away.header("retry-after"), "1");
    }
    let mut owner = Owner::default();
    for asked in asked {
        owner.answer(asked);
    }
    for socket in &mut waiting {
        assert_eq!(answered(socket, "POST", "/v1/transactions").await.status, 201);
    }
    assert_eq!(served.metric("counterfoil_http_connections_turned_away_total").await, 3);
}

#[tokio::test]
async fn a_thousand_sockets_that_do_nothing_do_not_keep_an_honest_till_out() {
    // A thousand sockets of ours need more descriptors than many machines allow at first.
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).unwrap();
    let served = serve_with_owner(IngressConfig { connections_max: 32, ..config() }).await;
    let mut kept = served.connect().await;
    let mut sockets = Vec::new();
    for index in 0..1_000 {
        let mut socket = served.connect().await;
        // A third is idle, a third hangs in its head, a third in its body.
        let said = match index % 3 {
            0 => String::new(),
            1 => "POST /v1/trans".to_owned(),
            _ => head(1_000_000) + "{",
        };
        socket.write_all(said.as_bytes()).await.unwrap();
        sockets.push(socket);
        if index % 100 == 0 {
            let answer = served.post("/v1/transactions", &sale(index)).await;
            assert_eq!(answer.status, 201);
        }
    }
    assert!(served.metric("counterfoil_http_connections_given_up_total").await >= 900);
    assert!(served.metric("counterfoil_http_connections").await <= 32);
    assert!(is_closed(&mut kept).await, "the longest idle one made room");
}

#[tokio::test]
async fn large_bodies_share_their_room_and_a_sale_needs_none() {
    let mut served = serve(IngressConfig { bodies_bytes_max: 1 << 20, ..config() }).await;
    let mut inbox = served.inbox.take().unwrap();
    let padded = |bytes: usize, number| format!("[{}{}]", " ".repeat(bytes), sale(number));
    let mut sockets = Vec::new();
    let mut asked = Vec::new();
    // The second is small enough to need no room.
    for body in [padded(900 << 10, 1), padded(0, 2)] {
        let mut socket = served.connect().await;
        socket.write_all(&request("POST", "/v1/transactions", JSON, &body)).await.unwrap();
        asked.push(inbox.requests.recv().await.unwrap());
        sockets.push(socket);
    }
    served.post("/v1/transactions", &padded(200 << 10, 3)).await.is_problem(503, "busy");
    let mut owner = Owner::default();
    for (asked, socket) in asked.into_iter().zip(&mut sockets) {
        owner.answer(asked);
        assert_eq!(answered(socket, "POST", "/v1/transactions").await.status, 200);
    }
    let mut socket = served.connect().await;
    socket.write_all(&request("POST", "/v1/transactions", JSON, &padded(200 << 10, 3))).await.unwrap();
    owner.answer(inbox.requests.recv().await.unwrap());
    assert_eq!(answered(&mut socket, "POST", "/v1/transactions").await.json()["recorded"], 1);
}

#[tokio::test]
async fn a_stop_lets_the_request_at_work_end_and_takes_no_more() {
    let mut served = serve(config()).await;
    let mut inbox = served.inbox.take().unwrap();
    let mut idle = served.connect().await;
    let mut working = served.connect().await;
    working.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    let asked = inbox.requests.recv().await.unwrap();
    served.stop.take().unwrap().send(()).unwrap();
    assert!(is_closed(&mut idle).await);
    Owner::default().answer(asked);
    assert_eq!(answered(&mut working, "POST", "/v1/transactions").await.status, 201);
    assert!(is_closed(&mut working).await);
    timeout(AT_MOST, &mut served.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let mut served = serve(short(|config| &mut config.drain_timeout)).await;
    let mut inbox = served.inbox.take().unwrap();
    let mut working = served.connect().await;
    working.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    let _never_answered = inbox.requests.recv().await.unwrap();
    served.stop.take().unwrap().send(()).unwrap();
    timeout(AT_MOST, &mut served.serving).await.unwrap().unwrap();
    assert!(is_closed(&mut working).await);
}

#[tokio::test]
async fn the_unix_socket_serves_and_replaces_only_what_is_dead() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ingress.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let config = IngressConfig { unix_socket: Some(path.clone()), ..config() };
    let mut served = serve_with_owner(config.clone()).await;
    let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    socket.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    assert_eq!(answered(&mut socket, "POST", "/v1/transactions").await.status, 201);
    let (agent, _inbox) = channel(1, Status::default());
    let second = Ingress::bind(&config, context(), agent.clone()).await;
    assert!(matches!(second, Err(IngressError::UnixSocket { .. })), "{second:?}");
    let taken = IngressConfig { listen: served.address, unix_socket: None, ..config };
    let second = Ingress::bind(&taken, context(), agent).await;
    assert!(matches!(second, Err(IngressError::Listen { .. })), "{second:?}");
    served.stop.take().unwrap().send(()).unwrap();
    timeout(AT_MOST, &mut served.serving).await.unwrap().unwrap();
    assert!(!path.exists());
}
