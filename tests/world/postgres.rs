//! A private `PostgreSQL` cluster: a data directory of its own, as an unprivileged user, syncing like a real one.
//!
//! Invariant: a server that may already run on the machine is never touched. `fsync` stays on: what a hub has been told is
//! committed survives [`Postgres::crash`].

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::needs;
use crate::process::{Process, free_port, tail};

const USER: &str = "counterfoil";
const START_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_mins(2);

/// A cluster; it may be down.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    port: u16,
    directory: TempDir,
}

impl Postgres {
    /// Creates a cluster and starts it.
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        if let Some((user, group)) = unprivileged() {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group))
                .expect("giving a directory of our own away");
        }
        let mut initdb = as_unprivileged(&needs::INITDB.path());
        initdb.args(["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", "--username", USER, "--pgdata"]);
        let output = initdb.arg(directory.path().join("data")).stdin(Stdio::null()).output().expect("initdb starts");
        assert!(output.status.success(), "initdb failed: {}", tail(&String::from_utf8_lossy(&output.stderr)));
        let mut postgres = Self { process: None, port: free_port(), directory };
        postgres.start().await;
        postgres
    }

    /// Where a database is, over the loopback.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database and says where it is.
    pub async fn create_database(&self, database: &str) -> String {
        let client = self.client("postgres").await.expect("the server accepts connections");
        client.batch_execute(&format!("CREATE DATABASE \"{database}\"")).await.expect("creating a database of our own");
        self.url(database)
    }

    /// A connection for a test's own questions.
    pub async fn client(&self, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        tokio::spawn(async move {
            // It ends with its client, or with the server; both are the test's doing.
            let _ended = connection.await.is_err();
        });
        Ok(client)
    }

    /// Starts the server, on the same port and with what is in the data directory.
    pub async fn start(&mut self) {
        let directory = self.directory.path();
        let mut command = as_unprivileged(&needs::POSTGRES.path());
        command.arg("-D").arg(directory.join("data"));
        let sockets = format!("unix_socket_directories={}", directory.display());
        let port = format!("port={}", self.port);
        for setting in
            ["listen_addresses=127.0.0.1", "fsync=on", "max_connections=100", "shared_buffers=64MB", &sockets, &port]
        {
            command.args(["-c", setting]);
        }
        let log = directory.join("log");
        self.process = Some(Process::start("postgres", command, &log));
        self.process
            .as_mut()
            .expect("just put there")
            .line("database system is ready to accept connections", START_LIMIT)
            .await;
    }

    /// Stops the server in good order, ending its connections.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::INT, STOP_LIMIT).await;
        }
    }

    /// Ends the server without a checkpoint, as a crash does: the next start recovers from its log.
    pub async fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::QUIT, STOP_LIMIT).await;
        }
    }

    /// A copy of everything as it is now. The server is down while it is taken.
    pub async fn backup(&mut self) -> Backup {
        self.stop().await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        copy(&self.data(), &directory.path().join("data"));
        self.start().await;
        Backup { directory }
    }

    /// Puts an earlier copy in the place of everything. The server is down meanwhile, and connections end.
    pub async fn restore(&mut self, backup: &Backup) {
        self.stop().await;
        std::fs::remove_dir_all(self.data()).expect("removing a directory of our own");
        copy(&backup.directory.path().join("data"), &self.data());
        self.start().await;
    }

    /// A dump of a database, taken while everybody works with it (`pg_dump`).
    pub fn dump(&self, database: &str) -> Dump {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut command = as_unprivileged(&needs::PG_DUMP.path());
        command.args(["--format=custom", "--dbname", &self.url(database)]);
        let output = file.reopen().expect("a file of our own");
        let status = command.stdin(Stdio::null()).stdout(output).status().expect("pg_dump starts");
        assert!(status.success(), "pg_dump failed");
        Dump { file }
    }

    /// Puts a dump in the place of a database, ending whoever is connected to it (`pg_restore`).
    pub async fn restore_dump(&self, database: &str, dump: &Dump) {
        let client = self.client("postgres").await.expect("the server accepts connections");
        let drop = format!("DROP DATABASE \"{database}\" WITH (FORCE)");
        client.batch_execute(&drop).await.expect("dropping a database of our own");
        self.create_database(database).await;
        let mut command = as_unprivileged(&needs::PG_RESTORE.path());
        command.args(["--exit-on-error", "--no-owner", "--dbname", &self.url(database)]);
        let input = dump.file.reopen().expect("a file of our own");
        let status = command.stdin(input).status().expect("pg_restore starts");
        assert!(status.success(), "pg_restore failed");
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The running server.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // Its children go with it in this way; they would stay for a moment after a SIGKILL.
            process.finish(Signal::QUIT);
        }
    }
}

/// A data directory as it was once.
#[derive(Debug)]
pub struct Backup {
    directory: TempDir,
}

/// A database as it was once.
#[derive(Debug)]
pub struct Dump {
    file: tempfile::NamedTempFile,
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).stdin(Stdio::null()).status().expect("cp starts");
    assert!(status.success(), "copying {} failed", from.display());
}

/// `PostgreSQL` refuses to run as root: the user to run it as, if we are root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // The package's own user where it is, else the user that owns nothing.
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

fn as_unprivileged(program: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    // Settings of the caller's own server would lead it astray.
    for variable in ["PGHOST", "PGPORT", "PGDATA", "PGUSER", "PGDATABASE"] {
        command.env_remove(variable);
    }
    command.current_dir("/");
    command
}
