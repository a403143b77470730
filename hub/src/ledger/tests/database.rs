//! Databases for the tests: a file, and a PostgreSQL cluster of our own that ends with the test process.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::postgres::Postgres;
use super::super::sqlite::Sqlite;
use super::*;

/// Where a ledger lives; it can be opened several times.
pub(crate) enum Place {
    File(tempfile::TempDir),
    Server(Box<tokio_postgres::Config>),
}

impl Place {
    pub(crate) async fn open(&self) -> SqlLedger {
        self.open_with(SafeWhen::Stored).await
    }

    pub(crate) async fn open_with(&self, safe_when: SafeWhen) -> SqlLedger {
        SqlLedger::open(self.database(), safe_when).await.unwrap()
    }

    /// Statements that make a ledger of this version one of version 2.
    pub(crate) fn undo(&self) -> Vec<&'static str> {
        let mut undo = vec![
            "DROP TABLE enrolments",
            "DROP TABLE certificates",
            "DROP TABLE barred",
            "DROP TABLE names",
            "DROP TABLE voids_waiting",
            "DROP TABLE purchases",
            "DROP TABLE return_lines",
            "DROP INDEX marks_of_other",
            "DROP INDEX streams_of_epoch",
            "DROP INDEX exceptions_of_record",
            "ALTER TABLE poster DROP COLUMN tied_position",
            "DELETE FROM marks WHERE mark IN (8, 16)",
            "DROP TABLE seals",
            "DROP TABLE delays",
            "DROP TABLE replays",
            "DROP TABLE audit",
            "DROP TABLE outbox",
            "DROP INDEX exceptions_untold",
            "DROP INDEX exceptions_to_escalate",
            "ALTER TABLE exceptions DROP COLUMN untold",
            "ALTER TABLE exceptions DROP COLUMN told_state",
            "ALTER TABLE exceptions DROP COLUMN route",
            "ALTER TABLE exceptions DROP COLUMN owner",
            "ALTER TABLE exceptions DROP COLUMN escalate_at",
            "ALTER TABLE exceptions DROP COLUMN escalated_at",
            "ALTER TABLE exceptions DROP COLUMN notified_at",
        ];
        undo.push(match self {
            Self::File(_) => "PRAGMA user_version = 2",
            Self::Server(_) => "UPDATE ledger_schema SET version = 2",
        });
        undo
    }

    pub(crate) fn database(&self) -> Box<dyn Database> {
        match self {
            Self::File(directory) => Box::new(Sqlite::open(&directory.path().join("hub.db")).unwrap()),
            Self::Server(config) => Box::new(Postgres::new((**config).clone(), None)),
        }
    }
}

/// A fresh place of each kind that this machine has.
pub(crate) fn places() -> Vec<Place> {
    let mut places = vec![Place::File(tempfile::tempdir().unwrap())];
    let config = postgres_url().map(|url| url.parse().unwrap());
    places.extend(config.map(|config| Place::Server(Box::new(config))));
    places
}

/// A fresh database on PostgreSQL, where this machine has one.
pub(crate) fn postgres_url() -> Option<String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let cluster = cluster()?;
    let name = format!("t{}", NUMBER.fetch_add(1, Ordering::SeqCst));
    let created = cluster.program("createdb").args(["-h", &cluster.socket_dir, "-U", "postgres", &name]).status();
    assert!(created.unwrap().success(), "createdb");
    Some(format!("postgres://postgres@{}/{name}", cluster.socket_dir.replace('/', "%2F")))
}

struct Cluster {
    bin: PathBuf,
    socket_dir: String,
}

impl Cluster {
    /// A program of PostgreSQL, as its user where this process is root.
    fn program(&self, name: &str) -> Command {
        as_postgres(&self.bin.join(name))
    }
}

fn as_postgres(program: &Path) -> Command {
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    if uid.trim_ascii() != b"0" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER.get_or_init(start).as_ref()
}

fn start() -> Option<Cluster> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bin = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("postgres").exists()).max();
    let Some(bin) = bin else {
        eprintln!(
            "SKIPPED against PostgreSQL: no /usr/lib/postgresql/*/bin/postgres here; install the package postgresql"
        );
        return None;
    };
    // A shell watches our end of a pipe: however this process ends, the server is stopped and its directory removed.
    let script = r#"
        set -e
        dir=$(mktemp -d /tmp/counterfoil-hub-test.XXXXXX)
        "$1/initdb" -D "$dir/data" -U postgres --auth=trust --no-sync >"$dir/log" 2>&1
        "$1/postgres" -D "$dir/data" -c listen_addresses= -c unix_socket_directories="$dir" -c max_connections=300 >>"$dir/log" 2>&1 &
        pid=$!
        until "$1/pg_isready" -q -h "$dir"; do kill -0 $pid; sleep 0.05; done
        echo "$dir"
        read -r end || true
        kill -QUIT $pid; wait $pid || true
        rm -rf "$dir"
    "#;
    let mut shell = as_postgres(Path::new("/bin/sh"))
        .args(["-c", script, "sh"])
        .arg(&bin)
        .current_dir("/tmp")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut socket_dir = String::new();
    let stdout = shell.stdout.as_mut().unwrap();
    let mut byte = [0];
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        socket_dir.push(char::from(byte[0]));
    }
    assert!(!socket_dir.is_empty(), "PostgreSQL did not start");
    // Its stdin stays open until this process ends.
    std::mem::forget(shell);
    Some(Cluster { bin, socket_dir })
}
