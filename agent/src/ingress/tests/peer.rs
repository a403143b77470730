//! What one peer may have: connections, requests, bytes; and that another one does not notice.

use tokio::net::TcpSocket;

use super::*;
use crate::ingress::peers::{Allowance, BYTES_PER_REQUEST};

/// An address of this machine that is not the one of the honest till.
fn elsewhere(number: u8) -> IpAddr {
    IpAddr::from([127, 0, 1, number])
}

async fn connect_from(served: &Served, source: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    socket.connect(served.address).await.unwrap()
}

async fn ask(socket: &mut TcpStream, path: &str, headers: &str) -> Answer {
    socket.write_all(&request("GET", path, headers, "")).await.unwrap();
    answered(socket, "GET", path).await
}

fn few(per_second: u32, burst: u32) -> IngressConfig {
    IngressConfig { allowance: Allowance { per_second, burst }, ..config() }
}

#[tokio::test]
async fn who_asks_without_end_is_told_to_come_again_and_another_till_does_not_notice() {
    let served = serve_with_owner(few(1, 30)).await;
    let mut flood = connect_from(&served, elsewhere(1)).await;
    let (mut answers, mut refused) = (0, None);
    while refused.is_none() {
        let answer = ask(&mut flood, "/v1/exceptions", "").await;
        if answer.status == 200 {
            answers += 1;
        } else {
            refused = Some(answer);
        }
    }
    // The connection cost one of them; while the refusal waited, one came back.
    assert!((28..=31).contains(&answers), "{answers}");
    let refused = refused.unwrap();
    refused.is_problem(429, "too-many-requests");
    assert_eq!(refused.header("retry-after"), "1");
    // Another connection does not help; it is not even taken, but for the second that passed.
    let mut taken = Vec::new();
    let answer = loop {
        let mut socket = connect_from(&served, elsewhere(1)).await;
        tokio::select! {
            answer = read_answer(&mut socket) => break answer.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(100)) => taken.push(socket),
        }
    };
    assert!(taken.len() < 3);
    answer.is_problem(429, "too-many-requests");
    assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"));
    // Nor does a document, nor a probe; and nothing was recorded of it.
    flood.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    answered(&mut flood, "POST", "/v1/transactions").await.is_problem(429, "too-many-requests");
    assert_eq!(served.post("/v1/transactions", &sale(2)).await.json()["seq"], 1, "the first that was recorded");
    assert!(served.metric("counterfoil_http_connections_refused_total").await >= 1);
    let counted = "counterfoil_http_responses_total{route=\"/v1/transactions\",status=\"429\"}";
    assert_eq!(served.metric(counted).await, 1);
}

#[tokio::test]
async fn a_refusal_waits_so_that_refusing_costs_little() {
    let served = serve_with_owner(few(1, 10)).await;
    let mut flood = connect_from(&served, elsewhere(1)).await;
    let pipelined: Vec<u8> = request("GET", "/healthz", "", "").repeat(200);
    flood.write_all(&pipelined).await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut refused = 0;
    while refused < 3 {
        let answer = answered(&mut flood, "GET", "/healthz").await;
        refused += u32::from(answer.status == 429);
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn large_bodies_cost_more_and_are_paid_for_however_they_are_answered() {
    let served = serve_with_owner(few(1, 20)).await;
    let mut till = connect_from(&served, elsewhere(1)).await;
    // Not JSON, so it is read and thrown away: thirty requests' worth.
    let body = " ".repeat(30 * BYTES_PER_REQUEST);
    till.write_all(&request("POST", "/v1/transactions", "content-type: text/plain\r\n", &body)).await.unwrap();
    answered(&mut till, "POST", "/v1/transactions").await.is_problem(415, "content-type-not-supported");
    let refused = ask(&mut till, "/healthz", "").await;
    refused.is_problem(429, "too-many-requests");
    assert!((10..=13).contains(&refused.header("retry-after").parse::<u32>().unwrap()), "{refused:?}");
}

#[tokio::test]
async fn a_token_has_a_budget_of_its_own_behind_any_address() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "flood 0123456789abcdef\ntill fedcba9876543210 workstation=3\n").unwrap();
    let tokens = Some(grant::read(file.path()).unwrap());
    let served = serve_with_owner(IngressConfig { tokens, ..few(1, 30) }).await;
    let mut flood = served.connect().await;
    let flooding = "authorization: Bearer 0123456789abcdef\r\n";
    while ask(&mut flood, "/v1/exceptions", flooding).await.status == 200 {}
    // Guessing tokens is paid by the address, which has its own as well.
    let mut guess = served.connect().await;
    let mut guesses = 0;
    while ask(&mut guess, "/v1/exceptions", "authorization: Bearer guessed\r\n").await.status == 401 {
        guesses += 1;
    }
    assert!((20..=30).contains(&guesses), "{guesses}");
    // The till shares the address with both, and has a connection already or comes from elsewhere.
    let honest = "authorization: Bearer fedcba9876543210\r\n";
    assert_eq!(ask(&mut guess, "/v1/exceptions", honest).await.status, 200);
    assert_eq!(ask(&mut connect_from(&served, elsewhere(2)).await, "/v1/exceptions", honest).await.status, 200);
}

#[tokio::test]
async fn a_peer_has_its_share_of_the_connections_and_no_more() {
    let served = serve_with_owner(IngressConfig { peer_connections_max: 8, ..config() }).await;
    let mut till = served.connect().await;
    let mut idle = connect_from(&served, elsewhere(2)).await;
    assert_eq!(ask(&mut till, "/v1/exceptions", "").await.status, 200);
    assert_eq!(ask(&mut idle, "/v1/exceptions", "").await.status, 200);
    let mut flood = Vec::new();
    for _ in 0..40 {
        let mut socket = connect_from(&served, elsewhere(1)).await;
        socket.write_all(b"POST /v1/trans").await.unwrap();
        flood.push(socket);
    }
    // All were accepted in order before this one, so the count is of all of them.
    assert_eq!(served.metric("counterfoil_http_connections").await, 8 + 2 + 1);
    assert!(served.metric("counterfoil_http_connections_given_up_total").await >= 32);
    assert_eq!(ask(&mut till, "/v1/exceptions", "").await.status, 200);
    assert_eq!(ask(&mut idle, "/v1/exceptions", "").await.status, 200);
    let oldest = timeout(AT_MOST, flood[0].read_u8()).await.expect("closed in time");
    assert!(oldest.is_err(), "its own oldest made room");
}

#[tokio::test]
async fn no_number_of_peers_closes_the_connection_of_a_till_that_sold_before() {
    let served = serve_with_owner(IngressConfig { connections_max: 32, peer_connections_max: 8, ..config() }).await;
    let mut till = served.connect().await;
    till.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    assert_eq!(answered(&mut till, "POST", "/v1/transactions").await.status, 201);
    // Sixty addresses with three sockets each, in every phase; none gets a request through.
    let mut flood = Vec::new();
    for number in 0..180_u8 {
        let mut socket = connect_from(&served, elsewhere(number % 60 + 1)).await;
        let said = [
            "",
            "POST /v1/trans",
            "POST /v1/transactions HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 9\r\n\r\n{",
        ];
        socket.write_all(said[usize::from(number % 3)].as_bytes()).await.unwrap();
        flood.push(socket);
        if number % 20 == 0 {
            till.write_all(&request("POST", "/v1/transactions", JSON, &sale(u64::from(number) + 2))).await.unwrap();
            assert_eq!(answered(&mut till, "POST", "/v1/transactions").await.status, 201);
        }
    }
    assert!(served.metric("counterfoil_http_connections").await <= 32);
}

#[tokio::test]
async fn who_goes_on_opening_is_not_heard_for_a_while_and_gets_in_by_itself_after_it() {
    let served = serve_with_owner(few(3, 10)).await;
    let mut taken = Vec::new();
    // Over loopback a connection is made at once; one that waits behind another peer's was dropped.
    let waiting = 'shut: {
        for number in 2..=250 {
            let mut waiting = Box::pin(connect_from(&served, elsewhere(1)));
            tokio::select! {
                biased;
                socket = &mut waiting => taken.push(socket),
                other = async {
                    let (one, other) = (elsewhere(number), IpAddr::from([127, 0, 2, number]));
                    (connect_from(&served, one).await, connect_from(&served, other).await)
                } => {
                    drop(other);
                    break 'shut waiting;
                }
            }
        }
        panic!("never shut out");
    };
    assert!(taken.len() > 40, "{}: a budget, and refusals that are borne", taken.len());
    assert_eq!(served.metric("counterfoil_http_peers_shut_out_total").await, 1);
    let mut waiting = timeout(AT_MOST, waiting).await.expect("its kernel tried again");
    assert_eq!(ask(&mut waiting, "/v1/exceptions", "").await.status, 200);
}
