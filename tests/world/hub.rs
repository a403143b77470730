//! A hub process as a child: its configuration, its life and violent ends.
//!
//! Invariant: what a hub process must not lose lies in the ledger alone; its directory holds configuration and log only (and the
//! database, where that is `SQLite`).

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use crate::agent::{Mqtt, command};
use crate::http::Api;
use crate::process::{Process, free_port, write_file};
use crate::wait::Deadline;

const READY_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_mins(2);

/// A hub process; it may be down.
#[derive(Debug)]
pub struct Hub {
    name: String,
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
    starts: u32,
    /// What signs the certificate of its API; plain HTTP without.
    ca_file: Option<PathBuf>,
}

impl Hub {
    /// A hub in `directory` (created), not yet started. `more` is added to its configuration: further tables, whole.
    pub fn new(directory: &Path, name: &str, mqtt: &Mqtt, ledger_url: &str, more: &str) -> Self {
        std::fs::create_dir_all(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let port = free_port();
        let config = format!(
            "{}\n[ledger]\nurl = {ledger_url:?}\nsafe = \"stored\"\n\n[api]\nlisten = \"127.0.0.1:{port}\"\n\n{more}",
            mqtt.toml()
        );
        write_file(&directory.join("hub.toml"), &config);
        Self { name: name.to_owned(), directory: directory.to_owned(), port, process: None, starts: 0, ca_file: None }
    }

    /// The same, its API under TLS; `more` begins with the further keys of `[api]`.
    #[must_use]
    pub fn with_tls(self, ca_file: &Path) -> Self {
        Self { ca_file: Some(ca_file.to_owned()), ..self }
    }

    /// Where its HTTP API is.
    pub fn url(&self) -> String {
        let scheme = if self.ca_file.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Starts it; see [`Hub::ready`].
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "the hub runs already");
        let command = command("counterfoil-hub", &self.config());
        self.process = Some(Process::start(&self.name, command, &self.directory.join("hub.log")));
        self.starts += 1;
    }

    /// Waits until it answers; panics with its output where it ends before.
    pub async fn ready(&mut self) {
        let api = self.api();
        let process = self.process.as_mut().expect("a hub is started before it is ready");
        let deadline = Deadline::new(READY_LIMIT);
        while api.success("/healthz").await.is_err() {
            process.wait_on(deadline, "healthy").await;
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
            Some(ca_file) => Api::over_tls(&self.url(), ca_file),
            None => Api::new(&self.url()),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.join("hub.toml")
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
