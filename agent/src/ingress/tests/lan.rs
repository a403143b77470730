//! On the LAN: TLS, who a till is by its token or certificate, and what each may do.

use std::collections::BTreeSet;

use counterfoil_config::tls::{self, ClientFiles, Identity, ServerFiles};
use counterfoil_config::tokens::Tokens;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::ingress::grant::{self, Grant, Role};
use crate::ingress::route::{Guard, ROUTES};

/// An authority of its own, and the files of the box.
struct Lan {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Lan {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let lan = Self { directory, authority };
        std::fs::write(lan.file("ca.pem"), lan.authority.pem()).unwrap();
        lan.issue("box");
        lan
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate of that common name, for servers and clients; replaces the files of the one before.
    fn issue(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let [cert_file, key_file] = ["pem", "key"].map(|ending| self.file(&format!("{name}.{ending}")));
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Identity { cert_file, key_file }
    }

    fn config(&self, asks_for_certificates: bool) -> IngressConfig {
        let [cert_file, key_file] = ["box.pem", "box.key"].map(|name| self.file(name));
        let client_ca_file = asks_for_certificates.then(|| self.file("ca.pem"));
        let tls = Some(ServerFiles { identity: Identity { cert_file, key_file }, client_ca_file });
        IngressConfig { tls, ..config() }
    }

    async fn connect(&self, served: &Served, identity: Option<&Identity>) -> std::io::Result<TlsStream<TcpStream>> {
        let config = ClientFiles { ca_file: self.file("ca.pem"), identity: identity.cloned() }.read().unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect("localhost".try_into().unwrap(), served.connect().await).await
    }

    /// One call over a connection of its own.
    async fn call(&self, served: &Served, identity: Option<&Identity>, request: &[u8], path: &str) -> Answer {
        let mut stream = self.connect(served, identity).await.unwrap();
        stream.write_all(request).await.unwrap();
        let method = if request.starts_with(b"POST") { "POST" } else { "GET" };
        answered(&mut stream, method, path).await
    }
}

fn tokens(text: &str) -> Tokens<Grant> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    grant::read(file.path()).unwrap()
}

fn bearer(token: &str) -> String {
    format!("{JSON}authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn tls_is_spoken_where_there_are_files_and_renewed_ones_need_no_restart() {
    let lan = Lan::new();
    let served = serve_with_owner(lan.config(false)).await;
    let mut before = lan.connect(&served, None).await.unwrap();
    before.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    assert_eq!(answered(&mut before, "POST", "/v1/transactions").await.status, 201);
    // Who does not speak it is not answered in the clear.
    let mut plain = served.connect().await;
    plain.write_all(&request("GET", "/healthz", "", "")).await.unwrap();
    let mut said = Vec::new();
    timeout(AT_MOST, plain.read_to_end(&mut said)).await.expect("closed in time").unwrap_or_default();
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    // A renewed certificate is served to who comes after it, and the connection from before goes on.
    let renewed = tls::certificates(&lan.issue("box").cert_file).unwrap();
    let by = tokio::time::Instant::now() + AT_MOST;
    loop {
        let stream = lan.connect(&served, None).await.unwrap();
        if stream.get_ref().1.peer_certificates().unwrap() == renewed {
            break;
        }
        assert!(tokio::time::Instant::now() < by, "the renewed certificate is not served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    before.write_all(&request("POST", "/v1/transactions", JSON, &sale(1))).await.unwrap();
    assert_eq!(answered(&mut before, "POST", "/v1/transactions").await.status, 200);
}

#[tokio::test]
async fn who_dribbles_its_hello_or_says_nothing_is_cut_and_a_flood_of_them_makes_room() {
    let lan = Lan::new();
    let served =
        serve_with_owner(IngressConfig { header_timeout: Duration::from_millis(200), ..lan.config(false) }).await;
    let mut silent = served.connect().await;
    assert!(timeout(AT_MOST, silent.read_u8()).await.expect("cut in time").is_err());
    let mut socket = served.connect().await;
    let (mut read, mut write) = socket.split();
    // The beginning of a record that says it has 16 KiB.
    let dribble = async {
        let mut hello = [&[22, 3, 1, 0x40, 0][..], &[1; 16_384]].concat().into_iter();
        while write.write_all(&[hello.next().unwrap()]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        read = timeout(AT_MOST, read.read_u8()) => assert!(read.expect("cut in time").is_err()),
        () = dribble => {}
    }
    // Without that limit, they make room.
    let patient = IngressConfig { connections_max: 16, peer_connections_max: 16, ..lan.config(false) };
    let served = serve_with_owner(patient).await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        let mut socket = served.connect().await;
        socket.write_all(&[22, 3]).await.unwrap();
        flood.push(socket);
    }
    let answer = lan.call(&served, None, &request("GET", "/healthz", "", ""), "/healthz").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_certificate_names_its_till() {
    let lan = Lan::new();
    let tokens = Some(tokens("server 0123456789abcdef\n9 - workstation=3,4\n"));
    let served = serve_with_owner(IngressConfig { tokens, ..lan.config(true) }).await;
    let [till3, till4, till9] = ["3", "4", "9"].map(|name| lan.issue(name));
    let post = request("POST", "/v1/transactions", JSON, &sale(1));
    let path = "/v1/transactions";
    lan.call(&served, Some(&till4), &post, path).await.is_problem(403, "wrong-workstation");
    lan.call(&served, None, &post, path).await.is_problem(401, "token-missing");
    let first = lan.call(&served, Some(&till3), &post, path).await;
    assert_eq!((first.status, &first.json()["seq"]), (201, &1.into()), "nothing was recorded before");
    assert_eq!(lan.call(&served, Some(&till9), &post, path).await.status, 200);
    let with_token = request("POST", path, &bearer("0123456789abcdef"), &sale(1));
    assert_eq!(lan.call(&served, None, &with_token, path).await.status, 200);
    // One of another authority is not even let in.
    let other = Lan::new();
    let foreign = other.issue("3");
    let stream = lan.connect(&served, Some(&foreign)).await;
    if let Ok(mut stream) = stream {
        // In TLS 1.3 a client is done before the server has looked at its certificate.
        stream.write_all(&post).await.unwrap_or_default();
        assert!(timeout(AT_MOST, read_answer(&mut stream)).await.expect("closed in time").is_none());
    }
    assert_eq!(served.refusals.counts()["wrong-workstation"], 1);
}

#[tokio::test]
async fn a_till_that_is_bound_posts_for_its_own_workstations_alone() {
    let tokens = Some(tokens(
        "till3 0123456789abcde3 workstation=3\ntill4 0123456789abcde4 workstation=4,5\nserver 0123456789abcdef\n",
    ));
    let served = serve_with_owner(IngressConfig { tokens, ..config() }).await;
    let (till3, till4, pos) = (bearer("0123456789abcde3"), bearer("0123456789abcde4"), bearer("0123456789abcdef"));
    let path = "/v1/transactions";
    served.call("POST", path, &till4, &sale(1)).await.is_problem(403, "wrong-workstation");
    // Of many, each is judged by itself.
    let of_till5 = sale(2).replace("\"workstation_id\":\"3\"", "\"workstation_id\":\"5\"");
    let many = served.call("POST", path, &till4, &format!("[{},{of_till5}]", sale(1))).await.json();
    let statuses = [&many["results"][0]["status"], &many["results"][1]["status"]];
    assert_eq!((statuses, &many["recorded"]), ([&403.into(), &201.into()], &1.into()), "{many}");
    assert_eq!(many["results"][0]["problem"]["type"], "https://counterfoil.dev/problems/wrong-workstation");
    let first = served.call("POST", path, &till3, &sale(1)).await;
    assert_eq!((first.status, &first.json()["seq"]), (201, &2.into()), "nothing of it had been recorded");
    assert_eq!(served.call("POST", path, &pos, &of_till5).await.status, 200);
    // What was another till's cannot be asked for again either.
    served.call("POST", path, &till4, &sale(1)).await.is_problem(403, "wrong-workstation");
    // A movement of stock is nobody's; the close of the whole store is not one till's.
    let movement = "{\"document_id\":\"m1\",\"type\":\"receipt\",\"end_date_time\":\"2026-11-23T10:15:40+01:00\",\"line_items\":\
        [{\"line\":1,\"item_id\":\"A\",\"quantity\":\"1\",\"unit\":\"EA\"}]}";
    assert_eq!(served.call("POST", "/v1/stock-movements", &till3, movement).await.status, 201);
    let close = |till: &str| {
        format!(
            "{{\"document_id\":\"c{till}\",{till}\"business_day_date\":\"2026-11-23\",\"end_date_time\":\"2026-11-23T20:15:40+01:00\",\"totals\":[]}}"
        )
    };
    let path = "/v1/day-closes";
    served.call("POST", path, &till3, &close("").replace("\"c\"", "\"c0\"")).await.is_problem(403, "wrong-workstation");
    let own = close("\"workstation_id\":\"3\",").replace("\"c\"workstation_id\":\"3\",\"", "\"c3\"");
    assert_eq!(served.call("POST", path, &till3, &own).await.status, 201);
    served.call("POST", path, &till4, &own).await.is_problem(403, "wrong-workstation");
}

#[tokio::test]
async fn another_systems_documents_are_bound_like_everybodys() {
    let tokens = Some(tokens("till4 0123456789abcde4 workstation=4\nserver 0123456789abcdef\n"));
    let served = serve_with_owner(IngressConfig { tokens, ..config() }).await;
    let poslog = "<POSLog xmlns=\"http://www.nrf-arts.org/IXRetail/namespace/\"><Transaction><WorkstationID>3</WorkstationID>\
        <SequenceNumber>7</SequenceNumber><BusinessDayDate>2026-11-23</BusinessDayDate><EndDateTime>2026-11-23T10:15:40</EndDateTime>\
        <CurrencyCode>EUR</CurrencyCode><RetailTransaction><LineItem><SequenceNumber>1</SequenceNumber><Sale ItemType=\"Stock\"><ItemID>A</ItemID>\
        <Quantity>1</Quantity><ActualSalesUnitPrice>2.00</ActualSalesUnitPrice><ExtendedAmount>2.00</ExtendedAmount></Sale></LineItem>\
        <Total TotalType=\"TransactionGrandAmount\">2.00</Total></RetailTransaction></Transaction></POSLog>";
    let headers = |token: &str| format!("content-type: application/xml\r\nauthorization: Bearer {token}\r\n");
    let path = "/v1/ingest/poslog-6";
    served.call("POST", path, &headers("0123456789abcde4"), poslog).await.is_problem(403, "wrong-workstation");
    let answer = served.call("POST", path, &headers("0123456789abcdef"), poslog).await;
    assert_eq!((answer.status, &answer.json()["seq"]), (201, &1.into()));
}

/// Each call with each role: what is refused is exactly what the table refuses.
#[tokio::test]
async fn each_role_may_what_the_table_says_and_no_more() {
    let text = "reader 0123456789abcde0 role=read\nposter 0123456789abcde1 role=post\nsupporter 0123456789abcde2 role=support\n";
    let served = serve_with_owner(IngressConfig { tokens: Some(tokens(text)), ..config() }).await;
    let mut refused = BTreeSet::new();
    for route in ROUTES {
        let method = if route.post { "POST" } else { "GET" };
        let path: Vec<&str> =
            route.path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect();
        let path = path.join("/");
        for (role, token) in [
            (None, ""),
            (Some(Role::Read), "authorization: Bearer 0123456789abcde0\r\n"),
            (Some(Role::Post), "authorization: Bearer 0123456789abcde1\r\n"),
            (Some(Role::Support), "authorization: Bearer 0123456789abcde2\r\n"),
        ] {
            let answer = served.call(method, &path, &format!("{JSON}{token}"), "").await;
            let is_guarded = route.guard() == Guard::HostAndToken;
            match role {
                None if is_guarded => answer.is_problem(401, "token-missing"),
                Some(role) if is_guarded && role < route.role() => {
                    answer.is_problem(403, "role-not-enough");
                    refused.insert((route.path, role == Role::Read));
                }
                _ => assert!(![401, 403].contains(&answer.status), "{role:?} {method} {path}: {answer:?}"),
            }
        }
    }
    // Written down once more, so that a call which changes its role is noticed.
    let changes = ["acknowledge", "resolve", "waive"].map(|word| format!("/v1/exceptions/{{id}}/{word}"));
    let writes = [
        "transactions",
        "stock-movements",
        "fulfillment-updates",
        "tender-controls",
        "day-closes",
        "ingest/{profile}",
        "validate",
    ];
    let expected: BTreeSet<(String, bool)> = changes
        .iter()
        .flat_map(|path| [(path.clone(), true), (path.clone(), false)])
        .chain(writes.iter().map(|path| (format!("/v1/{path}"), true)))
        .collect();
    assert_eq!(refused.into_iter().map(|(path, by)| (path.to_owned(), by)).collect::<BTreeSet<_>>(), expected);
}
