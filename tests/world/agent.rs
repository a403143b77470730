//! An agent as a child process: its configuration, its directory, its life and violent ends.
//!
//! Invariant: port and data directory stay the same over all starts, as they do on a box in a store.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use counterfoil::answer::Status;
use rustix::process::Signal;

use crate::bin::bin;
use crate::http::Api;
use crate::pki::Identity;
use crate::process::{Process, free_port, write_file};
use crate::wait::Deadline;

const READY_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_mins(2);

/// How a program reaches the broker.
#[derive(Clone, Debug)]
pub struct Mqtt {
    /// `mqtt://` or `mqtts://`.
    pub url: String,
    /// The client certificate.
    pub identity: Option<Identity>,
}

impl Mqtt {
    /// The `[mqtt]` table of a configuration.
    pub(crate) fn toml(&self) -> String {
        let mut text = format!("[mqtt]\nurl = {:?}\n", self.url);
        if let Some(identity) = &self.identity {
            for (key, file) in
                [("ca_file", &identity.ca_file), ("cert_file", &identity.cert_file), ("key_file", &identity.key_file)]
            {
                writeln!(text, "{key} = \"{}\"", file.display()).expect("writing into a string");
            }
        }
        text
    }
}

/// What a program of ours says when it is asked for something, and how it ends.
pub fn ask(program: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(bin(program));
    command.args(arguments);
    without_overrides(&mut command);
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// A program of ours without what the caller's environment would override in its configuration.
pub(crate) fn command(program: &str, config: &Path) -> Command {
    run_with(Command::new(bin(program)), config)
}

fn run_with(mut command: Command, config: &Path) -> Command {
    command.arg("run").arg("--config").arg(config);
    without_overrides(&mut command);
    command
}

fn without_overrides(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("COUNTERFOIL__") {
            command.env_remove(variable);
        }
    }
}

/// An agent; it may be down.
#[derive(Debug)]
pub struct Agent {
    /// The store.
    pub store_id: String,
    /// The agent in the store.
    pub agent_id: String,
    directory: PathBuf,
    port: u16,
    /// Signs its certificate, where it has one.
    ca_file: Option<PathBuf>,
    process: Option<Process>,
    starts: u32,
}

/// The tills of the tests are one peer, and sell as fast as they can.
const UNHURRIED: &str =
    "peer_connections_percent = 100\npeer_requests_per_second = 1_000_000\npeer_burst = 1_000_000\n";

impl Agent {
    /// An agent in `directory` (created), not yet started. `more` is added to its configuration: further tables, whole.
    pub fn new(directory: &Path, store_id: &str, agent_id: &str, mqtt: &Mqtt, more: &str) -> Self {
        Self::configured(directory, store_id, agent_id, mqtt, UNHURRIED, more)
    }

    /// The same with what a peer may have by default; `ingress` is added to the table of that name, TLS where there is an identity for it.
    pub fn guarded(
        directory: &Path,
        store_id: &str,
        agent_id: &str,
        mqtt: &Mqtt,
        ingress: &str,
        tls: Option<&Identity>,
    ) -> Self {
        let files = tls.map_or_else(String::new, |Identity { cert_file, key_file, .. }| {
            format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", cert_file.display(), key_file.display())
        });
        let agent = Self::configured(directory, store_id, agent_id, mqtt, &format!("{ingress}{files}"), "");
        Self { ca_file: tls.map(|identity| identity.ca_file.clone()), ..agent }
    }

    fn configured(directory: &Path, store_id: &str, agent_id: &str, mqtt: &Mqtt, ingress: &str, more: &str) -> Self {
        std::fs::create_dir_all(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let port = free_port();
        let config = format!(
            "store_id = {store_id:?}\nagent_id = {agent_id:?}\ndata_dir = \"data\"\n\n[store]\ntime_zone = \"Europe/London\"\n\n\
             [ingress]\nlisten = \"127.0.0.1:{port}\"\n{ingress}\n{}backoff_max = \"1s\"\n\n{more}",
            mqtt.toml()
        );
        write_file(&directory.join("agent.toml"), &config);
        let [store_id, agent_id] = [store_id, agent_id].map(str::to_owned);
        Self { store_id, agent_id, directory: directory.to_owned(), port, ca_file: None, process: None, starts: 0 }
    }

    /// Starts it; see [`Agent::ready`].
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "the agent runs already");
        let command = command("counterfoil", &self.config());
        self.begin(command);
    }

    /// Starts another build of it: `program` stands before our arguments, such as an emulator and what it is to run; see [`Agent::ready`].
    pub fn start_as(&mut self, program: Command) {
        assert!(self.process.is_none(), "the agent runs already");
        let command = run_with(program, &self.config());
        self.begin(command);
    }

    fn begin(&mut self, command: Command) {
        let name = format!("agent {}.{}", self.store_id, self.agent_id);
        self.process = Some(Process::start(&name, command, &self.directory.join("agent.log")));
        self.starts += 1;
    }

    /// Starts it below another program, such as a tracer; see [`Agent::ready`].
    pub fn start_below(&mut self, tracer: &Path, arguments: &[&str]) {
        assert!(self.process.is_none(), "the agent runs already");
        let inner = command("counterfoil", &self.config());
        let mut outer = Command::new(tracer);
        outer.args(arguments).arg(inner.get_program()).args(inner.get_args());
        let name = format!("agent {}.{} below {}", self.store_id, self.agent_id, tracer.display());
        self.process = Some(Process::start(&name, outer, &self.directory.join("agent.log")));
        self.starts += 1;
    }

    /// Waits until it accepts documents; panics with its output where it ends before.
    pub async fn ready(&mut self) {
        let api = self.api();
        let process = self.process.as_mut().expect("an agent is started before it is ready");
        let deadline = Deadline::new(READY_LIMIT);
        while api.success("/readyz").await.is_err() {
            process.wait_on(deadline, "ready").await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        Some(process.stop(Signal::TERM, STOP_LIMIT).await)
    }

    /// Its HTTP API.
    pub fn api(&self) -> Api {
        match &self.ca_file {
            None => Api::new(&self.url()),
            Some(ca_file) => Api::over_tls(&self.url(), ca_file),
        }
    }

    /// Where its HTTP API is.
    pub fn url(&self) -> String {
        let scheme = if self.ca_file.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Option<Status> {
        self.api().json("/v1/status").await.ok()
    }

    /// Waits until the hub has stored everything that this agent has.
    pub async fn drained(&self, limit: Duration) {
        let deadline = Deadline::new(limit);
        while waiting(&self.api()).await != Some(0) {
            deadline.rest_for(&format!("the hub to store everything of {}.{}", self.store_id, self.agent_id)).await;
        }
    }

    /// Where it keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    /// Its process id; `None` while it is down.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The running process.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// How often it was started.
    pub const fn starts(&self) -> u32 {
        self.starts
    }
}

/// How many records an agent has that the hub has not stored yet; `None` while it has not heard the hub.
pub async fn waiting(agent: &Api) -> Option<u64> {
    let status: Status = agent.json("/v1/status").await.ok()?;
    status.uplink.welcomed.then(|| status.lanes.values().map(|lane| lane.waiting).sum())
}
