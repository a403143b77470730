//! One box, from the first installation to the last purge, while tills sell: not one record that a till was told is safe may be lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use world::compare::Report;
use world::http::Api;
use world::ledger::Ledger;
use world::process::free_port;
use world::receipts::{ReceiptBook, Stub};
use world::sales::{self, Call, Document, TillScript};
use world::till::{Mode, Progress, Till};
use world::wait::Deadline;

use crate::machine::Machine;
use crate::package;

const LIMIT: Duration = Duration::from_mins(2);
const STORE: &str = "0042";
/// Sales of a till between two looks whether it may go home.
const SALES: u64 = 20;
/// Of the agent, shorter than it ships, so that the test need not wait for a minute.
const WATCHDOG: Duration = Duration::from_secs(5);
const SOCKET: &str = "/run/counterfoil/ingress.sock";
const CONFIG: &str = "/etc/counterfoil/agent.toml";

fn sale(workstation_id: &str, number: u64) -> Document {
    let body = json!({"workstation_id": workstation_id, "business_day_date": "2026-11-23", "sequence_number": number,
        "type": "sale", "end_date_time": "2026-11-23T10:15:40+00:00", "currency_code": "EUR",
        "line_items": [{"line": 1, "kind": "sale", "item_id": "85123A", "quantity": "1", "unit": "EA",
            "actual_unit_price": "4.49", "extended_amount": "4.49"}],
        "tenders": [{"line": 1, "type": "cash", "amount": "4.49"}], "totals": {"gross": "4.49"}});
    let key = sales::key(STORE, &body).expect("a sale has an identity");
    Document { key, call: Call::Transactions, body: body.to_string() }
}

/// Sells until it is time to go home, then gives what it was told.
async fn sell(
    api: Api,
    workstation_id: String,
    book: PathBuf,
    progress: Arc<Progress>,
    home: watch::Receiver<bool>,
) -> BTreeMap<String, Stub> {
    let mut number = 0;
    loop {
        let documents = (number + 1..=number + SALES).map(|number| sale(&workstation_id, number)).collect();
        number += SALES;
        let script = TillScript { store_id: STORE.to_owned(), workstation_id: workstation_id.clone(), documents };
        let till = Till::new(
            api.clone(),
            &workstation_id,
            ReceiptBook::open(&book).expect("a till's book"),
            Mode::Single,
            Arc::clone(&progress),
        );
        let book = till.run(&script).await.expect("a till gets a receipt for everything");
        if *home.borrow() {
            return book.stubs().clone();
        }
    }
}

/// The box with its services, and the tills before it.
struct Shop {
    machine: Machine,
    agent: Api,
    hub: Api,
    port: u16,
    broker: u16,
    tills: JoinSet<BTreeMap<String, Stub>>,
    progress: Arc<Progress>,
    home: watch::Sender<bool>,
}

impl Shop {
    async fn new() -> Self {
        let machine = Machine::boot().await;
        let [port, api, broker] = [(); 3].map(|()| free_port());
        let environment = format!(
            "[Service]\nEnvironment=COUNTERFOIL__API__LISTEN=127.0.0.1:{api} \
             COUNTERFOIL__MQTT__URL=mqtt://127.0.0.1:{broker} \
             COUNTERFOIL__BROKER__EMBEDDED=true COUNTERFOIL__BROKER__LISTEN=127.0.0.1:{broker}\n"
        );
        machine.put("/etc/systemd/system/counterfoil-hub.service.d/test.conf", &environment);
        let watchdog = format!("[Service]\nWatchdogSec={}\n", WATCHDOG.as_secs());
        machine.put("/etc/systemd/system/counterfoil.service.d/test.conf", &watchdog);
        let [agent, hub] = [port, api].map(|port| Api::new(&format!("http://127.0.0.1:{port}")));
        let (home, _) = watch::channel(false);
        Self { machine, agent, hub, port, broker, tills: JoinSet::new(), progress: Arc::default(), home }
    }

    /// Makes a package and installs it; gives what was said.
    fn install(&self, program: &str, version: &str) -> String {
        let file = package::build(program, version, self.machine.directory());
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name of our own").to_owned();
        std::fs::copy(&file, self.machine.path(&format!("/var/tmp/{name}"))).expect("a copy into the box");
        self.machine.must(&format!("dpkg --install /var/tmp/{name}"))
    }

    /// What a person writes who says which box this is.
    fn configure(&self) {
        let text = std::fs::read_to_string(self.machine.path(CONFIG)).expect("the configuration");
        let ours = text
            .replace("# store_id = \"0042\"", &format!("store_id = \"{STORE}\""))
            .replace("# agent_id", "agent_id")
            .replace("mqtt://127.0.0.1:1883\"", &format!("mqtt://127.0.0.1:{}\"\nbackoff_max = \"1s\"", self.broker))
            .replace("[mqtt]", &format!("[ingress]\nlisten = \"127.0.0.1:{}\"\n\n[mqtt]", self.port));
        assert_ne!(ours, text);
        std::fs::write(self.machine.path(CONFIG), ours).expect("the configuration");
    }

    fn open(&mut self) {
        let socket = Api::over_socket(&self.machine.path(SOCKET));
        for (name, api) in [("1", socket.clone()), ("2", socket), ("3", self.agent.clone())] {
            let book = self.machine.directory().join(format!("book-{name}"));
            self.tills.spawn(sell(api, name.to_owned(), book, Arc::clone(&self.progress), self.home.subscribe()));
        }
    }

    fn told(&self) -> u64 {
        self.progress.told.load(Ordering::Relaxed)
    }

    /// Waits until tills were told of some more sales, each of them of at least one.
    async fn sells(&mut self) {
        let (deadline, before) = (Deadline::new(LIMIT), self.told());
        while self.told() < before + 60 {
            assert!(self.tills.try_join_next().is_none(), "a till went home early");
            assert!(deadline.rest().await, "the tills sell no more:\n{}", self.machine.log());
        }
    }

    /// Waits until the service was started again for the `count`th time.
    async fn restarts(&self, count: u32) {
        let deadline = Deadline::new(LIMIT);
        loop {
            let [restarts, state] =
                ["NRestarts", "ActiveState"].map(|property| self.machine.property("counterfoil", property));
            if restarts == count.to_string() && state == "active" {
                return;
            }
            assert!(deadline.rest().await, "{restarts} restarts, {state}:\n{}", self.machine.log());
        }
    }

    async fn drained(&self) {
        let deadline = Deadline::new(LIMIT);
        while world::agent::waiting(&self.agent).await != Some(0) {
            assert!(deadline.rest().await, "not everything reached the hub:\n{}", self.machine.log());
        }
    }

    async fn close(&mut self) -> BTreeMap<String, Stub> {
        self.home.send_replace(true);
        let mut told = BTreeMap::new();
        while let Some(stubs) = self.tills.join_next().await {
            told.extend(stubs.expect("a till goes home by itself"));
        }
        told
    }

    fn exists(&self, inside: &str) -> bool {
        self.machine.path(inside).exists()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_is_installed_killed_frozen_upgraded_and_removed_and_loses_nothing() {
    let mut shop = Shop::new().await;
    installed(&shop);
    shop.open();
    shop.sells().await;
    killed_and_frozen(&mut shop).await;
    hub_away(&mut shop).await;
    upgraded(&mut shop).await;
    let told = shop.close().await;
    shop.drained().await;
    let told = removed(&shop, told).await;

    let mut ledger = Ledger::default();
    ledger.read_on(&shop.hub).await.expect("the hub answers");
    let mut report = Report::default();
    report.stream(&ledger);
    report.receipts(&told, &ledger);
    assert!(report.agrees() && told.len() > 300, "{} receipts\n{}", told.len(), report.text());
}

/// What is not installed by packages: the tarball, twice, on a system without systemd and on one with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tarball_is_installed_and_again_over_what_runs_and_what_a_person_wrote() {
    let shop = Shop::new().await;
    let machine = &shop.machine;
    package::tarball(machine.directory(), &machine.path("/var/tmp/counterfoil.tar.gz"));
    machine.must("tar --extract --gzip --file /var/tmp/counterfoil.tar.gz --directory /opt");
    let refused = machine.run("setpriv --reuid=nobody /opt/counterfoil/install");
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");

    // The program that is there runs, and nobody else is needed.
    let said = machine.must("unshare --mount sh -c 'mount -t tmpfs none /run && /opt/counterfoil/install'");
    assert!(said.contains("as user counterfoil, under whatever keeps services running here"), "{said}");
    let made =
        "stat --format='%a %U %G' /var/lib/counterfoil /var/lib/counterfoil/identity /etc/counterfoil/credentials";
    let owners = "700 counterfoil counterfoil\n700 counterfoil counterfoil\n750 root counterfoil\n";
    assert_eq!(machine.must(made), owners);
    machine.must("getent group counterfoil-tills");

    shop.configure();
    let config = std::fs::read(machine.path(CONFIG)).expect("the configuration");
    let said = machine.must("/opt/counterfoil/install");
    assert!(said.contains("systemctl enable --now counterfoil"), "{said}");
    machine.must("systemctl enable --now counterfoil");
    let body = || sale("1", 1).body.into_bytes();
    let first = shop.agent.post("/v1/transactions", "application/json", body()).await.expect("an answer");
    assert_eq!(first.status, 201, "{}", first.text());

    machine.must("echo older >/usr/share/doc/counterfoil/examples/agent.toml && /opt/counterfoil/install");
    machine.must("systemctl restart counterfoil");
    let again = shop.agent.post("/v1/transactions", "application/json", body()).await.expect("an answer");
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(std::fs::read(machine.path(CONFIG)).expect("the configuration"), config, "it is kept");
    assert_eq!(
        machine.must("diff --recursive /opt/counterfoil/usr/share/doc /usr/share/doc | grep -v '^Only in /usr'; true"),
        ""
    );
    assert_eq!(machine.must(made), owners);
}

/// Nothing is started before somebody said which box this is; then it is ready when `systemctl` returns.
fn installed(shop: &Shop) {
    let machine = &shop.machine;
    shop.install("counterfoil-hub", "0.1.0-1");
    assert_eq!(machine.property("counterfoil-hub", "ActiveState"), "active", "{}", machine.log());
    let said = shop.install("counterfoil", "0.1.0-1");
    assert!(said.contains("not started. Say in /etc/counterfoil/agent.toml who this box is"), "{said}");
    assert!(!machine.run("systemctl start counterfoil").status.success());
    let state =
        ["ExecMainStatus", "ActiveState", "NRestarts"].map(|property| machine.property("counterfoil", property));
    assert_eq!(state, ["78", "failed", "0"], "a configuration that does not hold is not tried again");
    assert!(machine.property("counterfoil", "StatusText").contains("store_id"), "it says what is missing");
    shop.configure();
    machine.must("systemctl restart counterfoil");
    let words = machine.property("counterfoil", "StatusText");
    assert!(words.starts_with("Taking sales of store 0042"), "{words}");
    let access =
        machine.must("stat --format='%a %U' /var/lib/counterfoil; stat --format='%a %G' /run/counterfoil/ingress.sock");
    assert_eq!(access, "700 counterfoil\n660 counterfoil-tills\n");
    for unit in ["counterfoil.service", "counterfoil.socket", "counterfoil-hub.service"] {
        let said = machine.must(&format!("systemd-analyze verify --man=no /usr/lib/systemd/system/{unit}"));
        assert!(!said.contains("counterfoil"), "{said}");
    }
}

async fn killed_and_frozen(shop: &mut Shop) {
    shop.machine.must("systemctl kill --signal=KILL counterfoil");
    shop.restarts(1).await;
    shop.sells().await;
    // Frozen it holds its sockets and answers nobody; only the watchdog can tell.
    shop.machine.must("systemctl kill --signal=STOP counterfoil");
    shop.restarts(2).await;
    let log = shop.machine.must("journalctl --no-pager --unit=counterfoil");
    assert!(log.contains("Watchdog timeout"), "{log}");
    shop.sells().await;
}

/// A hub that is away for three times the watchdog's patience ends nothing.
async fn hub_away(shop: &mut Shop) {
    shop.machine.must("systemctl stop counterfoil-hub");
    let fed =
        |shop: &Shop| shop.machine.property("counterfoil", "WatchdogTimestampMonotonic").parse::<u128>().unwrap_or(0);
    let (before, deadline) = (fed(shop), Deadline::new(LIMIT));
    while fed(shop) < before + (WATCHDOG * 3).as_micros() {
        deadline.rest_for("the watchdog to be fed").await;
    }
    shop.restarts(2).await;
    shop.sells().await;
    let words = shop.machine.property("counterfoil", "StatusText");
    assert!(words.contains("no connection to the broker"), "{words}");
    // What it tells is in the journal by fields, and whole in the message.
    let told = "journalctl --no-pager --output=json --unit=counterfoil TARGET=counterfoil::uplink";
    let told = shop.machine.must(told);
    let line = told.lines().rfind(|line| line.contains("uplink down")).expect("the line went down");
    let line: serde_json::Value = serde_json::from_str(line).expect("a line of the journal");
    let reason = line["REASON"].as_str().expect("a field of its own");
    assert!(line["MESSAGE"].as_str().is_some_and(|message| message.contains(reason)), "{line}");
    assert!(
        line["PRIORITY"] == "6" && line["CODE_FILE"].as_str().is_some_and(|file| file.ends_with("uplink.rs")),
        "{line}"
    );
    shop.machine.must("systemctl start counterfoil-hub");
}

async fn upgraded(shop: &mut Shop) {
    let config = std::fs::read(shop.machine.path(CONFIG)).expect("the configuration");
    let before = shop.machine.property("counterfoil", "MainPID");
    let told = shop.told();
    shop.install("counterfoil", "0.1.1-1");
    assert_eq!(shop.machine.must("dpkg-query --show --showformat='${Version}' counterfoil"), "0.1.1-1");
    assert_eq!(std::fs::read(shop.machine.path(CONFIG)).expect("the configuration"), config, "an upgrade keeps it");
    assert_ne!(shop.machine.property("counterfoil", "MainPID"), before, "the new program runs");
    assert_eq!(shop.machine.property("counterfoil", "ActiveState"), "active");
    assert!(shop.told() > told, "the tills sold meanwhile");
    shop.sells().await;
}

/// What the hub has not is kept through removal and purge, and rescued by a new installation; then, and only then, a purge deletes it.
async fn removed(shop: &Shop, mut told: BTreeMap<String, Stub>) -> BTreeMap<String, Stub> {
    let machine = &shop.machine;
    machine.must("systemctl stop counterfoil-hub");
    let (home, going) = watch::channel(true);
    let book = machine.directory().join("book-4");
    told.extend(sell(shop.agent.clone(), "4".to_owned(), book, Arc::default(), going).await);
    drop(home);
    let said = machine.must("dpkg --remove counterfoil");
    assert!(said.contains("/var/lib/counterfoil holds records that the hub has not called safe"), "{said}");
    let said = machine.must("dpkg --purge counterfoil");
    assert!(said.contains("/var/lib/counterfoil is KEPT"), "{said}");
    assert!(shop.exists("/var/lib/counterfoil/journal") && !shop.exists(CONFIG));

    machine.must("systemctl start counterfoil-hub");
    shop.install("counterfoil", "0.1.1-1");
    shop.configure();
    machine.must("systemctl restart counterfoil");
    shop.drained().await;
    let said = machine.must("dpkg --purge counterfoil");
    assert!(!said.contains("KEPT") && !shop.exists("/var/lib/counterfoil"), "{said}");
    told
}
