//! Who a box is: enrolment, renewal before and after the certificate's end, revocation; with the real programs, a real Mosquitto with TLS, and, as
//! somebody else's EST client, curl and openssl.
//!
//! `COUNTERFOIL_IDENTITY=full` has the outage at its full length: certificates of 60 s, five minutes offline, 300,000 sales, which is what
//! 30 days of a store come to.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use counterfoil::answer::Status;
use serde_json::{Value, json};
use tempfile::TempDir;
use world::agent::{Agent, Mqtt, ask};
use world::broker::Broker;
use world::http::Api;
use world::hub::Hub;
use world::pki::Identity;
use world::process::{free_port, write_file};
use world::wait::{Deadline, rest};

use crate::stage::sale;

const LIMIT: Duration = Duration::from_mins(2);
/// Where a box keeps its identity: below its data directory, which it may write.
const BOX: &str = "agent/data/identity";

/// A hub that is the authority, a broker with its certificates, and a box that nobody knows yet.
struct Ground {
    agent: Agent,
    hub: Hub,
    broker: Broker,
    directory: TempDir,
}

impl Ground {
    async fn new(life: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let identity = |name: &str, from: &Path| Identity {
            common_name: name.to_owned(),
            ca_file: from.join("ca.pem"),
            cert_file: from.join(format!("{name}.pem")),
            key_file: from.join(format!("{name}.key")),
        };
        let port = free_port();
        let url = format!("mqtts://127.0.0.1:{port}");
        let hub_mqtt = Mqtt { url: url.clone(), identity: Some(identity("hub1", directory.path())) };
        let file = |name: &str| format!("\"{}\"", at(name).display());
        let more = format!(
            "cert_file = {}\nkey_file = {}\n\n[ca]\ncert_file = {}\nkey_file = {}\ncertificate_life = {life:?}\ncrl_file = {}\nacl_file = {}\n",
            file("api.pem"),
            file("api.key"),
            file("ca.pem"),
            file("ca.key"),
            file("crl.pem"),
            file("acl")
        );
        let ledger = format!("sqlite:{}", at("hub.db").display());
        let hub = Hub::new(&at("hub"), "hub1", &hub_mqtt, &ledger, &more).with_tls(&at("ca.pem"));
        let box_mqtt = Mqtt { url, identity: Some(identity("box", &at(BOX))) };
        let renewal = format!("[identity]\nurl = {:?}\nretry_max = \"1s\"\n", hub.url());
        let agent = Agent::new(&at("agent"), "0042", "box1", &box_mqtt, &renewal);
        let said = |arguments: &[&str]| {
            let output =
                ask("counterfoil-hub", &[&["ca"], arguments, &["--config", &hub.config().to_string_lossy()]].concat());
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let files = |name: &str| {
            [at(&format!("{name}.pem")), at(&format!("{name}.key"))].map(|path| path.display().to_string())
        };
        said(&["init"]);
        for (name, of) in [("api", "server"), ("broker", "server"), ("hub1", "hub")] {
            let [cert_file, key_file] = files(name);
            let names: &[&str] =
                if of == "server" { &["--name", "localhost", "--name", "127.0.0.1"] } else { &["--name", name] };
            said(&[&[of], names, &["--cert-file", &cert_file, "--key-file", &key_file]].concat());
        }
        let broker = Broker::with_files(port, &identity("broker", directory.path()), &at("acl"), &at("crl.pem")).await;
        let mut ground = Self { agent, hub, broker, directory };
        ground.hub.start();
        ground.hub.ready().await;
        ground
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What `counterfoil-hub ca …` prints.
    fn ca(&self, arguments: &[&str]) -> String {
        let config = self.hub.config();
        let output = ask("counterfoil-hub", &[&["ca"], arguments, &["--config", &config.to_string_lossy()]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A file with a one-time token.
    fn token(&self) -> PathBuf {
        let file = self.at("token");
        write_file(&file, &self.ca(&["token", "--store", "0042", "--agent", "box1"]));
        file
    }

    fn enroll(&self, token: &Path, more: &[&str]) -> Output {
        let config = self.agent.config();
        let usual = ["enroll", "--config", &config.to_string_lossy(), "--token-file", &token.to_string_lossy()];
        ask("counterfoil", &[&usual, more].concat())
    }

    /// The box enrolled, its access rules with the broker, and running.
    async fn running(&mut self) {
        let output = self.enroll(&self.token(), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.rules_hold("user 0042.box1\n", true).await;
        self.agent.start();
        self.agent.ready().await;
        self.status_becomes("welcomed", |status| status.uplink.welcomed).await;
    }

    /// Waits until the hub has put a line into the broker's rules, or taken it out, and has the broker read them, as a path unit of systemd does.
    async fn rules_hold(&self, line: &str, is_there: bool) {
        let deadline = Deadline::new(LIMIT);
        while std::fs::read_to_string(self.at("acl")).unwrap().contains(line) != is_there {
            deadline.rest_for("the broker's access rules").await;
        }
        self.broker.reload();
    }

    async fn status_becomes(&self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        let deadline = Deadline::new(LIMIT);
        loop {
            if let Some(status) = self.agent.status().await
                && good(&status)
            {
                return status;
            }
            deadline.rest_for(&format!("the agent to be {what}: {:?}", self.agent.status().await)).await;
        }
    }

    /// The codes of the agent's open exceptions.
    async fn alarms(&self) -> Vec<String> {
        let answer: Value = self.agent.api().json("/v1/exceptions").await.unwrap();
        let all = answer.as_array().unwrap();
        all.iter().map(|exception| exception["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Sales that the hub counts.
    async fn counted(&self) -> u64 {
        let totals: Value = self.hub.api().json("/v1/totals?store=0042&business_day=2026-11-23").await.unwrap();
        totals["currencies"].as_array().unwrap().iter().map(|currency| currency["transactions"].as_u64().unwrap()).sum()
    }

    /// Waits until the hub has everything that the till was told is safe, and says that it has it once.
    async fn has_all(&self, sold: u64) {
        self.agent.drained(Duration::from_mins(10)).await;
        let deadline = Deadline::new(LIMIT);
        while self.counted().await < sold {
            deadline.rest_for("the hub to count all sales").await;
        }
        assert_eq!(self.counted().await, sold);
    }
}

fn state(status: &Status) -> &str {
    status.certificate.as_ref().map_or("", |certificate| certificate.state.as_str())
}

/// A till that sells until it is stopped. Every sale that it counts was told to be safe.
struct Till {
    sold: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    work: tokio::task::JoinHandle<()>,
}

impl Till {
    fn start(api: Api, batch: u64, pause: Duration) -> Self {
        let (sold, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&sold), Arc::clone(&stop));
        let work = tokio::spawn(async move {
            while !end.load(Ordering::SeqCst) {
                let first = count.load(Ordering::SeqCst) + 1;
                let sales: Vec<Value> = (first..first + batch).map(|number| sale(number, 449)).collect();
                let body = Value::Array(sales).to_string().into_bytes();
                let answer = api
                    .post("/v1/transactions", "application/json", body)
                    .await
                    .expect("a till never waits for the network");
                let told: Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!((answer.status, &told["recorded"]), (200, &json!(batch)), "{}", answer.text());
                count.fetch_add(batch, Ordering::SeqCst);
                rest(pause).await;
            }
        });
        Self { sold, stop, work }
    }

    fn sold(&self) -> u64 {
        self.sold.load(Ordering::SeqCst)
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.work.await.expect("every sale was taken");
        self.sold.load(Ordering::SeqCst)
    }
}

struct Scale {
    life: &'static str,
    offline: Duration,
    batch: u64,
    pause: Duration,
}

fn scale() -> Scale {
    if std::env::var("COUNTERFOIL_IDENTITY").as_deref() == Ok("full") {
        Scale { life: "60s", offline: Duration::from_mins(5), batch: 1_000, pause: Duration::from_millis(700) }
    } else {
        Scale { life: "8s", offline: Duration::from_secs(16), batch: 20, pause: Duration::from_millis(100) }
    }
}

#[tokio::test]
async fn a_box_that_was_offline_for_longer_than_its_certificate_lives_renews_it_and_delivers_everything() {
    let Scale { life, offline, batch, pause } = scale();
    let mut ground = Ground::new(life).await;
    ground.running().await;
    let till = Till::start(ground.agent.api(), batch, pause);
    // An ordinary renewal: the connection is made anew with the next certificate, before the one before has ended.
    let renewals = |status: &Status| status.certificate.as_ref().map_or(0, |certificate| certificate.renewals);
    let status =
        ground.status_becomes("renewed", |status| renewals(status) >= 1 && status.uplink.connections >= 2).await;
    assert_eq!((state(&status), status.uplink.revoked), ("valid", false));
    assert_eq!(ground.alarms().await, Vec::<String>::new());

    ground.broker.kill();
    ground.hub.kill();
    let (begun, before) = (Instant::now(), renewals(&ground.agent.status().await.unwrap()));
    ground.status_becomes("expired", |status| state(status) == "expired").await;
    let mut sold = till.sold();
    while begun.elapsed() < offline {
        rest(Duration::from_secs(1)).await;
        let deadline = Deadline::new(LIMIT);
        while till.sold() == sold {
            deadline.rest_for("the till to sell on").await;
        }
        sold = till.sold();
    }
    assert_eq!(ground.alarms().await, ["CERTIFICATE_EXPIRED"]);

    ground.broker.start().await;
    ground.hub.start();
    ground.hub.ready().await;
    let back = Instant::now();
    let is_back = |status: &Status| state(status) == "valid" && status.uplink.welcomed && renewals(status) > before;
    ground.status_becomes("renewed after its end", is_back).await;
    let renewed_after = back.elapsed();
    let sold = till.end().await;
    ground.has_all(sold).await;
    let again = ground.agent.status().await.unwrap();
    eprintln!(
        "identity: {sold} sales, {} s offline with certificates of {life}; renewed and welcomed {} ms after the line came back, all delivered after {} ms; \
         {} renewals, {} connections",
        offline.as_secs(),
        renewed_after.as_millis(),
        back.elapsed().as_millis(),
        renewals(&again),
        again.uplink.connections
    );
    assert_eq!(ground.agent.starts(), 1);
}

#[tokio::test]
async fn a_revoked_box_is_refused_in_a_session_that_is_open_and_comes_back_by_a_new_token_alone() {
    let mut ground = Ground::new("10min").await;
    ground.running().await;
    let till = Till::start(ground.agent.api(), 5, Duration::from_millis(50));
    let deadline = Deadline::new(LIMIT);
    while ground.counted().await == 0 {
        deadline.rest_for("the first sale at the hub").await;
    }
    let revoked = Instant::now();
    ground.ca(&["revoke", "--store", "0042", "--agent", "box1", "--reason", "stolen"]);
    let status = ground.status_becomes("revoked", |status| status.uplink.revoked).await;
    eprintln!("identity: refused {} ms after the order, broker not told", revoked.elapsed().as_millis());
    assert!(status.uplink.last_error.unwrap().contains("its identity was revoked"));
    assert_eq!(ground.alarms().await, ["IDENTITY_REVOKED"]);
    // What is counted from here on stays what it is, however much the box has and however often it comes.
    let (taken, sold) = (ground.counted().await, till.sold());
    let deadline = Deadline::new(LIMIT);
    while till.sold() < sold + 200 {
        deadline.rest_for("the till to sell on").await;
    }
    let connections = ground.agent.status().await.unwrap().uplink.connections;
    ground.status_becomes("back again", |status| status.uplink.connections > connections + 1).await;
    assert_eq!(ground.counted().await, taken);

    // The broker reads its rules anew, and with a new start the list of revoked certificates: it is kept out there as well, and the hub renews nothing.
    ground.rules_hold("user 0042.box1\n", false).await;
    ground.broker.stop().await;
    ground.broker.start().await;
    ground
        .status_becomes("kept out", |status| {
            let refused = status.certificate.as_ref().and_then(|certificate| certificate.last_error.clone());
            !status.uplink.connected && refused.is_some_and(|why| why.contains("was revoked"))
        })
        .await;
    let letter = ground.token();
    let valid = ground.enroll(&letter, &[]);
    assert!(String::from_utf8_lossy(&valid.stdout).contains("has an identity already"), "{valid:?}");
    let output = ground.enroll(&letter, &["--again"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ground.rules_hold("user 0042.box1\n", true).await;
    let sold = till.end().await;
    ground.has_all(sold).await;
    assert!(!ground.agent.status().await.unwrap().uplink.revoked);
}

#[tokio::test]
async fn nothing_is_trusted_because_it_answered_and_enrolling_twice_does_no_harm() {
    let ground = Ground::new("10min").await;
    let said = |output: &Output| String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    let token = std::fs::read_to_string(ground.token()).unwrap();
    let bare = token.lines().find(|line| !line.starts_with('#')).unwrap();
    let file = |name: &str, text: &str| {
        let path = ground.at(name);
        write_file(&path, text);
        path
    };
    let files = ["box.pem", "box.key", "ca.pem"].map(|name| ground.at(BOX).join(name));
    let refused = |output: &Output, code: i32, words: &str| {
        assert_eq!(output.status.code(), Some(code), "{}", said(output));
        assert!(said(output).contains(words), "{}", said(output));
        assert!(!files[0].exists() && !files[2].exists());
    };
    refused(&ground.enroll(&file("bare", bare), &[]), 78, "Nothing to know the authority by");
    let other = "ab".repeat(32);
    refused(
        &ground.enroll(&file("bare", bare), &["--ca-fingerprint", &other]),
        1,
        "names no authority with the fingerprint",
    );
    let foreign = world::pki::Pki::new().ca_file();
    refused(
        &ground.enroll(&file("bare", bare), &["--ca-file", &foreign.to_string_lossy()]),
        1,
        "holds no usable certificate",
    );
    let foreign = world::pki::Pki::new();
    refused(
        &ground.enroll(&file("bare", bare), &["--ca-file", &foreign.ca_file().to_string_lossy()]),
        69,
        "UnknownIssuer",
    );
    refused(&ground.enroll(&file("wrong", &token.replace(bare, "guessed")), &[]), 1, "one-time token is not known");
    refused(&ground.enroll(&ground.at("nothing"), &[]), 78, "holds no one-time token");
    // The key of these attempts was made once, and stays.
    let key = std::fs::read(&files[1]).unwrap();

    let output = ground.enroll(&ground.at("token"), &[]);
    assert!(output.status.success() && said(&output).contains("0042.box1 is enrolled until"), "{}", said(&output));
    assert_eq!(std::fs::read(&files[1]).unwrap(), key);
    assert_eq!(std::fs::metadata(&files[1]).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(&files[2]).unwrap(), std::fs::read(ground.at("ca.pem")).unwrap());
    let certificate = std::fs::read(&files[0]).unwrap();
    let twice = ground.enroll(&ground.at("token"), &[]);
    assert!(twice.status.success() && said(&twice).contains("has an identity already"), "{}", said(&twice));
    assert_eq!(std::fs::read(&files[0]).unwrap(), certificate);
    // The answer was lost on its way: the same token gives the same key another certificate, and no other key.
    std::fs::remove_file(&files[0]).unwrap();
    let lost = ground.enroll(&ground.at("token"), &[]);
    assert!(lost.status.success(), "{}", said(&lost));
    let again = ground.enroll(&ground.at("token"), &["--again"]);
    assert!(!again.status.success() && said(&again).contains("used before, with another key"), "{}", said(&again));
    assert_eq!(std::fs::read(&files[1]).unwrap(), key, "what is in place stays until there is another");
}

/// Runs a script in the ground's directory; what it prints.
fn shell(ground: &Ground, script: &str) -> String {
    let mut command = Command::new("sh");
    let url = format!("{}/.well-known/est", ground.hub.url());
    let output = command.args(["-euc", script]).current_dir(ground.directory.path()).env("EST", url).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn any_est_client_enrols_and_renews_and_gets_no_other_name_than_its_token_is_for() {
    let ground = Ground::new("6s").await;
    write_file(&ground.at("token"), &ground.ca(&["token", "--store", "0042", "--agent", "box1"]));
    shell(
        &ground,
        "for name in box1 box2; do openssl ecparam -name prime256v1 -genkey -noout -out $name.key
            openssl req -new -key $name.key -subj /CN=0042.$name -outform DER | base64 >$name.csr; done
         openssl req -new -newkey rsa:2048 -nodes -keyout rsa.key -subj /CN=0042.box1 -outform DER 2>/dev/null | base64 >rsa.csr
         grep -v '^#' token | head -n 1 >bare",
    );
    let curl = "curl --silent --show-error --cacert ca.pem --header content-type:application/pkcs10";
    let status = |what: &str| shell(&ground, &format!("{curl} --output said --write-out '%{{http_code}}' {what}"));
    let printed = "base64 -d | openssl pkcs7 -inform DER -print_certs";
    let authorities = shell(
        &ground,
        &format!(
            "{curl} $EST/cacerts | {printed} >cacerts.pem; openssl x509 -in cacerts.pem -noout -fingerprint -sha256"
        ),
    );
    let fingerprint = authorities.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert!(std::fs::read_to_string(ground.at("token")).unwrap().contains(&fingerprint), "{authorities}");

    let with_token = "--user x:$(cat bare) $EST/simpleenroll --data-binary";
    assert_eq!(status(&format!("{with_token} @box2.csr")), "403");
    assert_eq!(status("--user x:guessed $EST/simpleenroll --data-binary @box1.csr"), "401");
    assert_eq!(status("$EST/simpleenroll --data-binary @box1.csr"), "401");
    assert_eq!(status(&format!("{with_token} nonsense")), "400");
    let subject = shell(
        &ground,
        &format!(
            "{curl} --fail {with_token} @box1.csr | {printed} >box1.pem; openssl x509 -in box1.pem -noout -subject -ext extendedKeyUsage,basicConstraints"
        ),
    );
    assert!(
        subject.contains("CN = 0042.box1")
            && subject.contains("TLS Web Client Authentication")
            && subject.contains("CA:FALSE"),
        "{subject}"
    );
    shell(&ground, "openssl verify -CAfile ca.pem box1.pem");
    // The token is bound to the first key.
    assert_eq!(status(&format!("{with_token} @rsa.csr")), "401");

    let proven = "--cert box1.pem --key box1.key $EST/simplereenroll --data-binary";
    assert_eq!(status("$EST/simplereenroll --data-binary @box1.csr"), "401");
    assert_eq!(status(&format!("{proven} @box2.csr")), "403");
    assert_eq!(status(&format!("{proven} @box1.csr")), "200");
    assert_eq!(status(&format!("{proven} @rsa.csr")), "200", "another key of the same name is a renewal as well");
    // Past its end the certificate is good for renewing, and for that alone.
    let deadline = Deadline::new(LIMIT);
    while shell(&ground, "openssl x509 -in box1.pem -noout -checkend 0 || true").contains("not expire") {
        deadline.rest_for("the certificate to end").await;
    }
    assert_eq!(status(&format!("{proven} @box1.csr")), "200");
    // Somebody who copied the certificate and not the key cannot renew it.
    let copied = shell(
        &ground,
        &format!(
            "{curl} --cert box1.pem --key box2.key $EST/simplereenroll --data-binary @box2.csr 2>&1 || echo refused"
        ),
    );
    assert!(copied.contains("refused"), "{copied}");
    ground.ca(&["revoke", "--store", "0042", "--agent", "box1", "--reason", "test"]);
    assert_eq!(status(&format!("{proven} @box1.csr")), "403");
    assert!(std::fs::read_to_string(ground.at("said")).unwrap().contains("was revoked"));
    let listed = ground.ca(&["list"]);
    assert!(listed.contains("0042.box1") && listed.contains("REVOKED") && listed.contains("hub1"), "{listed}");
}
