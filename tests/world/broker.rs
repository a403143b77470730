//! A real Mosquitto on a loopback port of its own, with the configuration that `config/mosquitto` ships.
//!
//! Invariant: only paths, port and user differ from the sample, so that what the tests prove holds for the sample too. The plain
//! broker leaves out TLS and the ACL, nothing else.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::needs;
use crate::pki::{Identity, Pki};
use crate::process::{Process, free_port, write_file};
use crate::wait::Deadline;

const SAMPLE: &str = include_str!("../../config/mosquitto/counterfoil.conf");
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// A broker; it may be down.
#[derive(Debug)]
pub struct Broker {
    directory: TempDir,
    /// Of its own, where nobody else keeps them.
    _files: Option<TempDir>,
    port: u16,
    tls: bool,
    process: Option<Process>,
}

impl Broker {
    /// A broker for anybody, without TLS.
    pub async fn plain() -> Self {
        Self::create(free_port(), None).await
    }

    /// A broker that lets in whom `pki` vouches for, and lets them do what `acl` says (see [`acl_of_agent`], [`acl_of_hub`]).
    pub async fn tls(pki: &Pki, acl: &str) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let acl_file = files.path().join("acl");
        write_file(&acl_file, acl);
        Self { _files: Some(files), ..Self::create(free_port(), Some((&pki.server(), &acl_file, None))).await }
    }

    /// A broker with that certificate, on a port that was chosen before; it lets in whom the certificate's authority vouches for and `crl_file` does not
    /// name, and lets them do what `acl_file` says.
    pub async fn with_files(port: u16, server: &Identity, acl_file: &Path, crl_file: &Path) -> Self {
        Self::create(port, Some((server, acl_file, Some(crl_file)))).await
    }

    async fn create(port: u16, tls: Option<(&Identity, &Path, Option<&Path>)>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("persistence")).expect("a directory in a temporary one");
        let mut config = Sample(SAMPLE.to_owned());
        config.set("listener", &format!("{port} 127.0.0.1"));
        config.set("persistence_location", &format!("{}/", directory.path().join("persistence").display()));
        if let Some((server, acl_file, crl_file)) = tls {
            config.set("cafile", &server.ca_file.display().to_string());
            config.set("certfile", &server.cert_file.display().to_string());
            config.set("keyfile", &server.key_file.display().to_string());
            config.set("acl_file", &acl_file.display().to_string());
            if let Some(crl_file) = crl_file {
                config.0 = config.0.replace("#crlfile ", "crlfile ");
                config.set("crlfile", &crl_file.display().to_string());
            }
        } else {
            for directive in [
                "cafile",
                "certfile",
                "keyfile",
                "tls_version",
                "require_certificate",
                "use_identity_as_username",
                "use_username_as_clientid",
                "acl_file",
            ] {
                config.remove(directive);
            }
            config.set("allow_anonymous", "true");
        }
        if rustix::process::geteuid().is_root() {
            // Mosquitto would otherwise turn into a user that cannot read the temporary directory.
            config.0.push_str("user root\n");
        }
        write_file(&directory.path().join("mosquitto.conf"), &config.0);
        let mut broker = Self { directory, _files: None, port, tls: tls.is_some(), process: None };
        broker.start().await;
        broker
    }

    /// Where agents and hubs connect.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        // The server certificate names both; "localhost" would also try ::1, where nobody listens.
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, on the same port and with what persistence there is.
    pub async fn start(&mut self) {
        let mut command = Command::new(needs::MOSQUITTO.path());
        command.arg("-c").arg(self.directory.path().join("mosquitto.conf"));
        let process = Process::start("mosquitto", command, &self.directory.path().join("log"));
        // The old one is gone, so whoever answers is the new one; it ends by itself where the port is taken.
        let process = self.process.insert(process);
        let deadline = Deadline::new(START_LIMIT);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            process.wait_on(deadline, "listening").await;
        }
    }

    /// Has it read its configuration and access rules anew.
    pub fn reload(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::HUP);
        }
    }

    /// Stops it in good order; it writes its persistence.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM, STOP_LIMIT).await;
        }
    }

    /// SIGKILL; what it held in memory is lost.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Removes what it has written; it must be down.
    pub fn wipe(&mut self) {
        assert!(self.process.is_none(), "a broker is wiped while it is down");
        let persistence = self.persistence();
        std::fs::remove_dir_all(&persistence).expect("removing a directory of our own");
        std::fs::create_dir(&persistence).expect("a directory in a temporary one");
    }

    /// Where it persists.
    pub fn persistence(&self) -> PathBuf {
        self.directory.path().join("persistence")
    }

    /// The running process.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }
}

/// What an agent may do: its own subtree and nothing else, as `config/mosquitto/counterfoil.acl` says.
pub fn acl_of_agent(store_id: &str, agent_id: &str) -> String {
    let base = format!("counterfoil/v1/{store_id}/{agent_id}");
    format!(
        "user {store_id}.{agent_id}\ntopic write {base}/state\ntopic write {base}/up/#\ntopic read {base}/down/#\n\n"
    )
}

/// What a hub process may do.
pub fn acl_of_hub(common_name: &str) -> String {
    let mut acl = format!("user {common_name}\n");
    for rule in ["read counterfoil/v1/+/+/state", "read counterfoil/v1/+/+/up/#", "write counterfoil/v1/+/+/down/#"] {
        writeln!(acl, "topic {rule}").expect("writing into a string");
    }
    acl.push('\n');
    acl
}

/// The shipped configuration, with single directives replaced.
struct Sample(String);

impl Sample {
    fn set(&mut self, directive: &str, value: &str) {
        let changed = self.each(directive, |_| Some(format!("{directive} {value}")));
        assert_eq!(changed, 1, "the sample has one line `{directive} …`");
    }

    fn remove(&mut self, directive: &str) {
        let changed = self.each(directive, |_| None);
        assert_eq!(changed, 1, "the sample has one line `{directive} …`");
    }

    fn each(&mut self, directive: &str, mut change: impl FnMut(&str) -> Option<String>) -> usize {
        let mut changed = 0;
        let mut text = String::with_capacity(self.0.len());
        for line in self.0.lines() {
            let line = if line.split_whitespace().next() == Some(directive) {
                changed += 1;
                change(line)
            } else {
                Some(line.to_owned())
            };
            if let Some(line) = line {
                text.push_str(&line);
                text.push('\n');
            }
        }
        self.0 = text;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_acl_says_what_the_tests_use() {
        let shipped = include_str!("../../config/mosquitto/counterfoil.acl");
        let rules = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
        };
        assert_eq!(rules(shipped), rules(&(acl_of_hub("hub1") + &acl_of_agent("0042", "box1"))));
    }
}
