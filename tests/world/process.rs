//! Child processes: started with their output in files, killed when dropped, watched through `/proc`.
//!
//! Invariant: no child outlives its [`Process`]. Output is never a pipe, so a child that talks a lot never waits for a reader.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::wait::Deadline;

/// Ports below are for the machine's own services.
const PORT_MIN: u16 = 10_000;
/// Where the ports that the kernel gives away begin when it does not say, or leaves too few below.
const PORTS_USUAL: u16 = 32_768;
const PORTS_AT_LEAST: u16 = 5_000;
const TRIES: usize = 1_000;

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    log_from: usize,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let log_from =
            usize::try_from(file.metadata().expect("metadata of an open file").len()).expect("a log fits memory");
        let second = file.try_clone().expect("a second handle of an open file");
        command.stdin(Stdio::null()).stdout(Stdio::from(file)).stderr(Stdio::from(second));
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), log_from }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has written since it was started.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_from..).unwrap_or_default()).into_owned()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("asking for the state of a child of our own")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ended_already = self.child.kill().is_err();
        self.child.wait().expect("waiting for a child of our own");
    }

    /// Sends `signal` and waits for the end.
    pub async fn stop(&mut self, signal: Signal, limit: Duration) -> ExitStatus {
        self.signal(signal);
        self.end(limit).await
    }

    /// Sends `signal` and waits for the end, however long it takes; for a drop, which cannot be asynchronous.
    pub fn finish(mut self, signal: Signal) {
        self.signal(signal);
        self.child.wait().expect("waiting for a child of our own");
    }

    /// Waits for the end.
    pub async fn end(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Deadline::new(limit);
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            deadline.rest_for(&format!("{} to end", self.name)).await;
        }
    }

    /// Waits until the output since the start holds `text`; panics with the output where the process ends before.
    pub async fn line(&mut self, text: &str, limit: Duration) {
        let deadline = Deadline::new(limit);
        while !self.output().contains(text) {
            self.wait_on(deadline, text).await;
        }
    }

    /// Rests before the next look at something that this process is to do; panics with its output where it has ended, or in vain.
    pub async fn wait_on(&mut self, deadline: Deadline, what: &str) {
        let ended = self.ended();
        if ended.is_none() && deadline.rest().await {
            return;
        }
        let reason = ended.map_or("the time is over".to_owned(), |status| format!("it ended with {status}"));
        panic!("Waited for \"{what}\" of {}, but {reason}. Its output:\n{}", self.name, tail(&self.output()));
    }

    /// Resident memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The greatest resident memory so far, in bytes.
    pub fn resident_bytes_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let kibibytes =
            status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill().is_err();
        let _waited_already = self.child.wait().is_err();
    }
}

/// Sends a signal to a child of ours that is not yet waited for, so that its id cannot be another's.
pub fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ended_already = kill_process(pid, signal).is_err();
    }
}

/// The end of an output, as much as helps.
pub fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}

/// Lets this process, and what it starts from now on, have as many descriptors as the machine allows it.
pub fn more_descriptors() {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).expect("the limit that there is anyway");
}

/// A loopback port that nobody listens on, and that no connection takes meanwhile: it lies below the ports that the kernel gives away, so that a
/// server that is down for a moment finds its port free when it comes back, however many clients knock. Each call of a process gives another.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let first_given_away = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u16>().ok())
        .filter(|first| *first > PORT_MIN + PORTS_AT_LEAST)
        .unwrap_or(PORTS_USUAL);
    for _ in 0..TRIES {
        let mut draw = [0; 8];
        getrandom::fill(&mut draw).expect("randomness of the system");
        let port = u64::from_le_bytes(draw) % u64::from(first_given_away - PORT_MIN) + u64::from(PORT_MIN);
        let port = u16::try_from(port).expect("below the first port that is given away");
        let is_new = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("None of {TRIES} ports between {PORT_MIN} and {first_given_away} is free")
}

/// A file of the world, written whole.
pub fn write_file(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Syncs a file and what its directory says of it.
pub fn sync_file(file: &File, path: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn shell(script: &str, directory: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("shell", command, &directory.join("log"))
    }

    #[tokio::test]
    async fn output_is_waited_for_and_a_kill_is_final() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("echo ready; kill -STOP $$", directory.path());
        process.line("ready", LIMIT).await;
        let resident_bytes = process.resident_bytes();
        assert!(resident_bytes > 0 && process.resident_bytes_peak() >= resident_bytes);
        let proc = format!("/proc/{}", process.id());
        assert!(Path::new(&proc).exists());
        process.kill();
        assert!(!Path::new(&proc).exists());
        // A second start appends; what was written before it is not its output.
        let mut process = shell("echo again", directory.path());
        assert!(process.end(LIMIT).await.success());
        assert_eq!(process.output(), "again\n");
    }

    #[tokio::test]
    #[should_panic(expected = "no such luck")]
    async fn a_child_that_ends_early_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        shell("echo no such luck; exit 3", directory.path()).line("ready", LIMIT).await;
    }
}
