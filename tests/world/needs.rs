//! The programs that the world needs beside our own: where they are, and how they get onto a Debian machine.
//!
//! Invariant: a missing program is either installed here (as root on Debian, quietly, one test process at a time) or named in a
//! panic with the exact command; no test is skipped for it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

/// A program of a Debian package.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    program: &'static str,
    package: &'static str,
    /// Directories beside PATH; a `*` stands for the highest number there.
    places: &'static [&'static str],
}

/// The MQTT broker.
pub const MOSQUITTO: Need = Need { program: "mosquitto", package: "mosquitto", places: &["/usr/sbin"] };
/// The browser.
pub const CHROMIUM: Need = Need { program: "chromium", package: "chromium", places: &["/usr/bin"] };
/// What shows the system calls of a process.
pub const STRACE: Need = Need { program: "strace", package: "strace", places: &["/usr/bin"] };
/// What makes a file system.
pub const MKFS_EXT4: Need = Need { program: "mkfs.ext4", package: "e2fsprogs", places: SYSTEM_PLACES };
/// What puts a file below a block device.
pub const LOSETUP: Need = Need { program: "losetup", package: "mount", places: SYSTEM_PLACES };
/// What mounts a file system.
pub const MOUNT: Need = Need { program: "mount", package: "mount", places: SYSTEM_PLACES };
/// What unmounts it.
pub const UMOUNT: Need = Need { program: "umount", package: "mount", places: SYSTEM_PLACES };
/// What makes a device file.
pub const MKNOD: Need = Need { program: "mknod", package: "coreutils", places: SYSTEM_PLACES };
/// What makes a whole file system durable.
pub const SYNC: Need = Need { program: "sync", package: "coreutils", places: SYSTEM_PLACES };
/// The database server.
pub const POSTGRES: Need = Need { program: "postgres", package: "postgresql", places: POSTGRES_PLACES };
/// What creates a database cluster.
pub const INITDB: Need = Need { program: "initdb", package: "postgresql", places: POSTGRES_PLACES };
/// What copies a database that is at work.
pub const PG_DUMP: Need = Need { program: "pg_dump", package: "postgresql", places: POSTGRES_PLACES };
/// What puts such a copy back.
pub const PG_RESTORE: Need = Need { program: "pg_restore", package: "postgresql", places: POSTGRES_PLACES };

/// What judges units and their sandbox.
pub const SYSTEMD_ANALYZE: Need = Need { program: "systemd-analyze", package: "systemd", places: SYSTEM_PLACES };
/// What boots a box of its own.
pub const SYSTEMD_NSPAWN: Need =
    Need { program: "systemd-nspawn", package: "systemd-container", places: SYSTEM_PLACES };
/// What goes into that box.
pub const NSENTER: Need = Need { program: "nsenter", package: "util-linux", places: SYSTEM_PLACES };
/// What makes the box's file system.
pub const MMDEBSTRAP: Need = Need { program: "mmdebstrap", package: "mmdebstrap", places: SYSTEM_PLACES };
/// What judges packages.
pub const LINTIAN: Need = Need { program: "lintian", package: "lintian", places: SYSTEM_PLACES };
/// What finds out what a program depends on.
pub const DPKG_SHLIBDEPS: Need = Need { program: "dpkg-shlibdeps", package: "dpkg-dev", places: SYSTEM_PLACES };
/// What strips a program.
pub const STRIP: Need = Need { program: "strip", package: "binutils", places: SYSTEM_PLACES };

/// What judges alerts and figures.
pub const PROMTOOL: Need = Need { program: "promtool", package: "prometheus", places: SYSTEM_PLACES };
/// What gathers figures and evaluates expressions over them.
pub const PROMETHEUS: Need = Need { program: "prometheus", package: "prometheus", places: SYSTEM_PLACES };

const SYSTEM_PLACES: &[&str] = &["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
const POSTGRES_PLACES: &[&str] = &["/usr/lib/postgresql/*/bin"];

impl Need {
    /// Where the program is; installs it where it is missing and may be installed.
    pub fn path(self) -> PathBuf {
        if let Some(found) = self.find() {
            return found;
        }
        self.install(|| self.find().is_some());
        self.find().unwrap_or_else(|| {
            panic!("{} is still missing after: {}. Install it and run the tests again", self.program, self.command())
        })
    }

    /// What it is called.
    pub const fn program(self) -> &'static str {
        self.program
    }

    fn command(self) -> String {
        format!("apt-get install --no-install-recommends --yes {}", self.package)
    }

    /// Where the program is; `None` where it is not.
    pub fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = self.places.iter().flat_map(|place| expand(place));
        std::env::split_paths(&path).chain(places).map(|place| place.join(self.program)).find(|file| file.is_file())
    }

    /// Installs the package, unless `is_there` turns true while another process does so.
    fn install(self, is_there: impl Fn() -> bool) {
        let may = rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists();
        assert!(may, "The tests need {}. Install it with: sudo {}", self.program, self.command());
        let lock = File::create(std::env::temp_dir().join("counterfoil-tests.apt.lock"))
            .expect("a lock file in the temporary directory");
        flock(&lock, FlockOperation::LockExclusive).expect("locking a file of our own");
        if is_there() {
            return;
        }
        // A list that is out of date or missing is the usual reason for a first failure.
        if !apt_get(&["install", "--no-install-recommends", "--yes", "-qq", self.package]) {
            apt_get(&["update", "-qq"]);
            let installed = apt_get(&["install", "--no-install-recommends", "--yes", "-qq", self.package]);
            assert!(installed, "The tests need {}, and this failed: {}", self.program, self.command());
        }
    }
}

/// A Python that has paho-mqtt, for the hub in Python: the system's before any other.
pub fn python_with_paho() -> PathBuf {
    let python = Need { program: "python3", package: "python3-paho-mqtt", places: &["/usr/bin"] };
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let others = std::env::split_paths(&path).map(|place| place.join(python.program)).collect::<Vec<_>>();
        let has_paho = |file: &PathBuf| {
            let mut command = Command::new(file);
            command.args(["-c", "import sqlite3, paho.mqtt.client"]).stdin(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        std::iter::once(PathBuf::from("/usr/bin/python3")).chain(others).find(has_paho)
    };
    find().unwrap_or_else(|| {
        python.install(|| find().is_some());
        find().unwrap_or_else(|| panic!("No python3 has paho-mqtt, not even after: {}", python.command()))
    })
}

fn apt_get(arguments: &[&str]) -> bool {
    Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A place with its `*` replaced by each directory there, highest number first.
fn expand(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once("*/") else {
        return vec![PathBuf::from(place)];
    };
    let mut numbers: Vec<u32> = std::fs::read_dir(before)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.into_iter().map(|number| Path::new(before).join(number.to_string()).join(after)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_with_a_version_expands_to_the_newest_first() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["9", "15", "junk"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let place = format!("{}/*/bin", directory.path().display());
        let expected: Vec<_> = ["15/bin", "9/bin"].iter().map(|part| directory.path().join(part)).collect();
        assert_eq!(expand(&place), expected);
    }

    #[test]
    fn a_program_that_is_there_is_found_and_one_that_is_not_is_named_with_its_command() {
        let shell = Need { program: "sh", package: "dash", places: &["/bin"] };
        assert!(shell.path().ends_with("sh"));
        let missing =
            Need { program: "counterfoil-no-such-program", package: "some-package", places: &["/nowhere/*/bin"] };
        assert_eq!(missing.find(), None);
        assert_eq!(missing.command(), "apt-get install --no-install-recommends --yes some-package");
    }
}
